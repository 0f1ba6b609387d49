#include "tests/worker/model/golden_gradients.h"

#include <cstdio>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "tests/reference/host_tensor.h"
#include "tests/support/data.h"
#include "worker/checkpoint/hf_checkpoint.h"
#include "worker/checkpoint/hf_loader.h"

namespace octet::test {
namespace {

using Floats = std::vector<float>;

constexpr float kLoraScale = 3;
constexpr int kLoraRank = 4;

template <typename T>
std::vector<T> Read(const SafetensorsFile& file, const std::string& name) {
  const SafetensorsEntry* entry = file.Find(name);
  if (entry == nullptr) return {};
  std::vector<T> out(entry->num_bytes() / sizeof(T));
  EXPECT_TRUE(file.Read(*entry, 0, entry->num_bytes(), out.data()).ok());
  return out;
}

GoldenSlots FourSlots(const SafetensorsFile& file) {
  GoldenSlots slots;
  for (int i = 0; i < 4; ++i) {
    const std::string name = absl::StrCat("slot", i, "/");
    slots.ids.push_back(Read<int32_t>(file, name + "input_ids"));
    slots.labels.push_back(Read<int32_t>(file, name + "labels"));
  }
  for (size_t i = 0; i < 4; ++i) {
    slots.inputs.push_back({{{slots.ids[i], slots.labels[i]}}, {}});
  }
  return slots;
}

// Three rows of 20 tokens, of which the first `lengths` are taken.
GoldenSlots BatchSlots(const SafetensorsFile& file, const std::string& prefix,
                       const std::vector<int32_t>& lengths) {
  const auto ids = Read<int32_t>(file, prefix + "input_ids");
  const auto labels = Read<int32_t>(file, prefix + "labels");
  GoldenSlots slots;
  for (int i = 0; i < 3; ++i) {
    const int begin = i * 20, end = begin + lengths.at(i);
    slots.ids.emplace_back(ids.begin() + begin, ids.begin() + end);
    slots.labels.emplace_back(labels.begin() + begin, labels.begin() + end);
  }
  for (size_t i = 0; i < 3; ++i) {
    slots.inputs.push_back({{{slots.ids[i], slots.labels[i]}}, {}});
  }
  return slots;
}

GoldenSlots SlotsOf(const GoldenTraining& golden, const std::string& prefix) {
  const std::vector<int32_t> whole = {20, 20, 20};
  if (prefix == "batch/") return BatchSlots(*golden.training, prefix, whole);
  if (prefix == "counted/") return BatchSlots(*golden.padding, "", whole);
  if (prefix == "masked/") {
    return BatchSlots(*golden.padding, "",
                      Read<int32_t>(*golden.padding, "lengths"));
  }
  return FourSlots(*golden.training);
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> Pack(Backend& backend,
                                                   const Floats& rows,
                                                   int64_t n) {
  const int64_t k = static_cast<int64_t>(rows.size()) / n;
  OCTET_ASSIGN_OR_RETURN(auto matrix,
                         backend.NewPackedMatrix(DType::kF32, n, k));
  OCTET_RETURN_IF_ERROR(backend.PackRows(
      *matrix, 0, ConstTensor(rows.data(), DType::kF32, {n, k})));
  return matrix;
}

// The adapter of modules that share one W: A stacked, s B block diagonal.
absl::StatusOr<std::unique_ptr<LoraWeights>> Adapter(
    Backend& backend, const SafetensorsFile& file,
    const std::vector<std::string>& modules) {
  Floats a, b;
  const int64_t width = kLoraRank * static_cast<int64_t>(modules.size());
  int64_t rows = 0;
  for (size_t m = 0; m < modules.size(); ++m) {
    const std::string name = "base_model.model." + modules[m];
    const auto part_a = Read<float>(file, name + ".lora_A.weight");
    const auto part_b = Read<float>(file, name + ".lora_B.weight");
    a.insert(a.end(), part_a.begin(), part_a.end());
    const int64_t part_rows = static_cast<int64_t>(part_b.size()) / kLoraRank;
    b.resize((rows + part_rows) * width);
    for (int64_t i = 0; i < part_rows * kLoraRank; ++i) {
      b[(rows + i / kLoraRank) * width + m * kLoraRank + i % kLoraRank] =
          kLoraScale * part_b[i];
    }
    rows += part_rows;
  }
  auto lora = std::make_unique<LoraWeights>();
  OCTET_ASSIGN_OR_RETURN(lora->a, Pack(backend, a, width));
  OCTET_ASSIGN_OR_RETURN(lora->b, Pack(backend, b, rows));
  lora->scale = kLoraScale;
  return lora;
}

absl::Status AttachAdapters(Backend& backend, const SafetensorsFile& file,
                            ModelWeights& weights) {
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    LayerWeights& layer = weights.layers[i];
    const std::string name = absl::StrCat("model.layers.", i, ".");
    const std::string attention = name + "self_attn.";
    OCTET_ASSIGN_OR_RETURN(layer.qkv_lora,
                           Adapter(backend, file,
                                   {attention + "q_proj", attention + "k_proj",
                                    attention + "v_proj"}));
    OCTET_ASSIGN_OR_RETURN(layer.o_lora,
                           Adapter(backend, file, {attention + "o_proj"}));
    OCTET_ASSIGN_OR_RETURN(
        layer.gate_lora,
        Adapter(backend, file, {name + "block_sparse_moe.gate"}));
    for (ExpertWeights& expert : layer.experts) {
      const std::string prefix = absl::StrCat(name, "block_sparse_moe.experts.",
                                              expert.expert_id, ".");
      OCTET_ASSIGN_OR_RETURN(
          expert.w13_lora,
          Adapter(backend, file, {prefix + "w1", prefix + "w3"}));
      OCTET_ASSIGN_OR_RETURN(expert.w2_lora,
                             Adapter(backend, file, {prefix + "w2"}));
    }
  }
  return absl::OkStatus();
}

// A module's place in a fused weight: rows [begin, begin + count), and which of
// the stacked adapters is its.
struct Place {
  WeightId id;
  int64_t begin = 0;
  int64_t count = -1;  // -1: all
  int adapter = 0;
};

Place PlaceOf(const std::string& name, const ModelConfig& config) {
  Place place;
  if (absl::StrContains(name, "embed_tokens")) return place;
  if (absl::StrContains(name, "lm_head")) return {{WeightKind::kLmHead}};
  if (absl::StrContains(name, "model.norm")) return {{WeightKind::kFinalNorm}};
  EXPECT_EQ(std::sscanf(name.c_str(), "model.layers.%d.", &place.id.layer), 1);
  const auto at = name.find("experts.");
  if (at != std::string::npos) {
    std::sscanf(name.c_str() + at, "experts.%d.", &place.id.expert_id);
  }
  const struct {
    const char* module;
    WeightKind kind;
    int64_t begin, count;
    int adapter;
  } modules[] = {
      {"input_layernorm", WeightKind::kInputNorm, 0, -1, 0},
      {"post_attention_layernorm", WeightKind::kPostAttentionNorm, 0, -1, 0},
      {"q_proj", WeightKind::kQkv, 0, config.q_dim(), 0},
      {"k_proj", WeightKind::kQkv, config.q_dim(), config.kv_dim(), 1},
      {"v_proj", WeightKind::kQkv, config.q_dim() + config.kv_dim(),
       config.kv_dim(), 2},
      {"o_proj", WeightKind::kO, 0, -1, 0},
      {"gate", WeightKind::kGate, 0, -1, 0},
      {".w1", WeightKind::kW13, 0, config.ffn_dim, 0},
      {".w3", WeightKind::kW13, config.ffn_dim, config.ffn_dim, 1},
      {".w2", WeightKind::kW2, 0, -1, 0},
  };
  for (const auto& module : modules) {
    if (!absl::StrContains(name, module.module)) continue;
    place.id.kind = module.kind;
    place.begin = module.begin;
    place.count = module.count;
    place.adapter = module.adapter;
  }
  if (absl::StrContains(name, "lora_A")) place.id.part = WeightPart::kLoraA;
  if (absl::StrContains(name, "lora_B")) place.id.part = WeightPart::kLoraB;
  return place;
}

// The part of a fused gradient that belongs to the module. `size`: of the
// module's.
std::vector<double> Cut(const std::vector<double>& total, const Place& place,
                        int64_t rows_of_w, int64_t size) {
  if (place.id.part == WeightPart::kLoraA) {
    return {total.begin() + place.adapter * size,
            total.begin() + (place.adapter + 1) * size};
  }
  const int64_t cols = static_cast<int64_t>(total.size()) / rows_of_w;
  if (place.id.part == WeightPart::kBase) {
    return {total.begin() + place.begin * cols,
            total.begin() + place.begin * cols + size};
  }
  std::vector<double> out;
  for (int64_t i = 0; i < size; ++i) {
    const int64_t row = place.begin + i / kLoraRank;
    out.push_back(
        total[row * cols + place.adapter * kLoraRank + i % kLoraRank]);
  }
  return out;
}

int64_t RowsOf(WeightKind kind, const ModelConfig& config) {
  switch (kind) {
    case WeightKind::kQkv:
      return config.q_dim() + 2 * config.kv_dim();
    case WeightKind::kW13:
      return 2 * config.ffn_dim;
    case WeightKind::kO:
    case WeightKind::kW2:
      return config.hidden_dim;
    case WeightKind::kGate:
      return config.num_experts;
    case WeightKind::kEmbedding:
    case WeightKind::kLmHead:
      return config.vocab_size;
    default:
      return 1;
  }
}

}  // namespace

GoldenTraining::GoldenTraining(const std::string& name)
    : dir(SourcePath("tests/golden/" + name)),
      training(SafetensorsFile::Open(dir + "/training.safetensors").value()),
      padding(SafetensorsFile::Open(dir + "/padding.safetensors").value()),
      config(LoadModelConfig(dir).value()) {}

const SafetensorsFile& GoldenTraining::FileOf(const std::string& name) const {
  return absl::StartsWith(name, "masked/") || absl::StartsWith(name, "counted/")
             ? *padding
             : *training;
}

double GoldenTraining::Number(const std::string& name) const {
  return Read<float>(FileOf(name), name).at(0);
}

GoldenPass MakeGoldenPass(const GoldenTraining& golden,
                          const std::string& prefix) {
  GoldenPass pass;
  pass.prefix = prefix;
  pass.slots = SlotsOf(golden, prefix);
  pass.adapted = prefix == "lora/";
  const bool batch = prefix != "full/" && prefix != "lora/";
  pass.options.reduction =
      batch ? LossReduction::kTokenMean : LossReduction::kSlotMean;
  pass.options.router_loss = {
      0.02f, 0, false,
      batch ? RouterLossScope::kBatch : RouterLossScope::kSlot};
  return pass;
}

absl::StatusOr<GoldenRun> RunGoldenPass(const GoldenTraining& golden,
                                        const GoldenPass& pass,
                                        Communicator& group, Backend& backend) {
  const ModelConfig& config = golden.config;
  TrainingBatch batch;
  batch.slots = pass.slots.inputs;
  batch.rank_slots = pass.rank_slots;
  if (batch.rank_slots.empty()) {
    std::vector<int64_t> tokens;
    for (const auto& slot : batch.slots) tokens.push_back(slot.num_tokens());
    batch.rank_slots = SplitSlots(tokens, group.size());
  }
  OCTET_RETURN_IF_ERROR(CheckTrainingBatch(batch, config));
  OCTET_ASSIGN_OR_RETURN(const Placement placement,
                         Placement::Default(config.num_experts, group.size()));
  OCTET_ASSIGN_OR_RETURN(const auto checkpoint, HfCheckpoint::Open(golden.dir));
  LoadOptions load;
  load.dtype = DType::kF32;
  const auto experts = placement.LocalExperts(group.rank());
  load.expert_ids.assign(experts.begin(), experts.end());
  OCTET_ASSIGN_OR_RETURN(ModelWeights weights,
                         LoadMixtral(*checkpoint, config, backend, load));
  if (pass.adapted) {
    OCTET_ASSIGN_OR_RETURN(
        const auto file,
        SafetensorsFile::Open(golden.dir +
                              "/adapter/adapter_model.safetensors"));
    OCTET_RETURN_IF_ERROR(AttachAdapters(backend, *file, weights));
  }
  OCTET_ASSIGN_OR_RETURN(
      const auto training,
      TrainingPass::Create(&backend, &group, config, &placement, &weights,
                           pass.options));
  RecordingSink sink(&backend, {config.vocab_size, config.hidden_dim},
                     [&](const WeightId& id) {
                       return (id.part == WeightPart::kBase) != pass.adapted;
                     });
  GoldenRun run;
  OCTET_ASSIGN_OR_RETURN(run.result, training->ForwardBackward(1, batch, sink));
  run.gradients = sink.gradients();
  return run;
}

void CompareGradients(const GoldenTraining& golden, const GoldenPass& pass,
                      const SlotGradients& gradients) {
  const std::string prefix = pass.prefix + "grad/";
  const SafetensorsFile& file = golden.FileOf(prefix);
  double worst = 0;
  std::string worst_name;
  int count = 0;
  for (const SafetensorsEntry& entry : file.entries()) {
    if (!absl::StartsWith(entry.name, prefix)) continue;
    const std::string name = entry.name.substr(prefix.size());
    const Floats expected = Read<float>(file, entry.name);
    const Place place = PlaceOf(name, golden.config);
    const std::vector<double> total = TotalOf(gradients, place.id);
    if (total.empty()) {
      ADD_FAILURE() << "no gradient of " << name;
      continue;
    }
    const auto actual = Cut(total, place, RowsOf(place.id.kind, golden.config),
                            static_cast<int64_t>(expected.size()));
    const Difference difference = Compare(actual, ToValues(expected));
    EXPECT_TRUE(difference.comparable) << name;
    EXPECT_LT(difference.max_relative, 1e-4) << name;
    ++count;
    if (difference.max_relative > worst) {
      worst = difference.max_relative;
      worst_name = name;
    }
  }
  EXPECT_GT(count, 0);
  std::printf("%s %d gradients, max error %.1e (%s)\n", prefix.c_str(), count,
              worst, worst_name.c_str());
}

}  // namespace octet::test
