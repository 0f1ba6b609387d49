#include "tests/worker/model/training_job.h"

#include <cstring>
#include <memory>
#include <mutex>
#include <utility>

#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "tests/reference/host_tensor.h"
#include "tests/support/ranks.h"
#include "worker/moe/placement.h"

namespace octet::test {
namespace {

absl::StatusOr<std::unique_ptr<LoraWeights>> MakeAdapter(Random& random,
                                                         const PackedMatrix& w,
                                                         float dropout,
                                                         Backend& backend) {
  constexpr int64_t kRank = 4;
  auto lora = std::make_unique<LoraWeights>();
  lora->scale = 0.5f;
  lora->dropout = dropout;
  const auto pack =
      [&](int64_t n,
          int64_t k) -> absl::StatusOr<std::unique_ptr<PackedMatrix>> {
    OCTET_ASSIGN_OR_RETURN(auto matrix,
                           backend.NewPackedMatrix(w.dtype(), n, k));
    const std::vector<float> rows = random.Floats(n * k, 0.2f);
    OCTET_RETURN_IF_ERROR(backend.PackRows(
        *matrix, 0, ConstTensor(rows.data(), DType::kF32, {n, k})));
    return matrix;
  };
  OCTET_ASSIGN_OR_RETURN(lora->a, pack(kRank, w.k()));
  OCTET_ASSIGN_OR_RETURN(lora->b, pack(w.n(), kRank));
  return lora;
}

std::string Text(const PassResult& result) {
  std::string text;
  const auto add = [&text](const auto* data, size_t count) {
    text.append(reinterpret_cast<const char*>(data), count * sizeof(*data));
  };
  const double values[] = {result.loss, result.aux_loss, result.z_loss,
                           static_cast<double>(result.num_tokens),
                           static_cast<double>(result.num_labels)};
  add(values, std::size(values));
  add(result.slot_losses.data(), result.slot_losses.size());
  add(result.slot_labels.data(), result.slot_labels.size());
  add(result.logprobs.data(), result.logprobs.size());
  add(result.expert_tokens.data(), result.expert_tokens.size());
  add(result.layer_aux_losses.data(), result.layer_aux_losses.size());
  return text;
}

}  // namespace

Slots MakeSlots(int64_t vocab_size) {
  Random random(21);
  Slots slots;
  for (const std::vector<int>& lengths :
       std::vector<std::vector<int>>{{7, 19}, {40}, {1, 5, 12}, {6}, {18, 2}}) {
    std::vector<Document>& slot = slots.emplace_back();
    for (int length : lengths) {
      Document& document = slot.emplace_back();
      for (int i = 0; i < length; ++i) {
        const auto id = static_cast<int32_t>(random.Integer(0, vocab_size - 1));
        document.ids.push_back(id);
        // Prompts of a third of the document; of 5 and 6 tokens all prompt.
        const bool learnt = length > 6 && i >= length / 3;
        document.labels.push_back(learnt ? id : kIgnoredLabel);
      }
    }
  }
  return slots;
}

std::vector<TrainingSlotInput> InputsOf(const Slots& slots) {
  std::vector<TrainingSlotInput> inputs;
  for (const auto& slot : slots) {
    TrainingSlotInput& input = inputs.emplace_back();
    for (const Document& document : slot) {
      input.documents.push_back({document.ids, document.labels});
    }
  }
  return inputs;
}

absl::Status AttachTinyAdapters(const TinyModel& model, float dropout,
                                Backend& backend, ModelWeights& weights) {
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    LayerWeights& layer = weights.layers[i];
    Random random(100 + i);
    OCTET_ASSIGN_OR_RETURN(layer.qkv_lora,
                           MakeAdapter(random, *layer.qkv, dropout, backend));
    OCTET_ASSIGN_OR_RETURN(layer.o_lora,
                           MakeAdapter(random, *layer.o, dropout, backend));
    OCTET_ASSIGN_OR_RETURN(layer.gate_lora,
                           MakeAdapter(random, *layer.gate, dropout, backend));
    for (ExpertWeights& expert : layer.experts) {
      Random own(1000 + i * model.config.num_experts + expert.expert_id);
      OCTET_ASSIGN_OR_RETURN(expert.w13_lora,
                             MakeAdapter(own, *expert.w13, dropout, backend));
      OCTET_ASSIGN_OR_RETURN(expert.w2_lora,
                             MakeAdapter(own, *expert.w2, dropout, backend));
    }
  }
  return absl::OkStatus();
}

TrainingOutcome RunTraining(TrainingJob job) {
  const ModelConfig& config = job.model->config;
  std::vector<int64_t> tokens;
  for (const auto& slot : job.batch.slots) tokens.push_back(slot.num_tokens());
  if (job.batch.rank_slots.empty()) {
    job.batch.rank_slots = SplitSlots(tokens, job.num_ranks);
  }
  const absl::Status checked = CheckTrainingBatch(job.batch, config);
  EXPECT_TRUE(checked.ok()) << checked;
  std::vector<TrainingOutcome> outcomes(job.num_ranks);
  const auto statuses = RunRanks(job.num_ranks, [&](Communicator& group) {
    OCTET_ASSIGN_OR_RETURN(const auto backend, NewCpuBackend(job.backend));
    OCTET_ASSIGN_OR_RETURN(
        const Placement placement,
        Placement::Parse(job.placement, config.num_experts, job.num_ranks));
    OCTET_ASSIGN_OR_RETURN(ModelWeights weights,
                           PackTinyModel(*job.model, *backend, job.dtype,
                                         placement.LocalExperts(group.rank())));
    if (job.adapter_dropout) {
      OCTET_RETURN_IF_ERROR(AttachTinyAdapters(*job.model, *job.adapter_dropout,
                                               *backend, weights));
    }
    OCTET_ASSIGN_OR_RETURN(
        const auto pass,
        TrainingPass::Create(backend.get(), &group, config, &placement,
                             &weights, job.options));
    RecordingSink sink(backend.get(), {config.vocab_size, config.hidden_dim},
                       [](const WeightId&) { return true; });
    TrainingOutcome& outcome = outcomes[group.rank()];
    OCTET_ASSIGN_OR_RETURN(
        outcome.result, job.backward ? pass->ForwardBackward(1, job.batch, sink)
                                     : pass->Forward(1, job.batch));
    outcome.gradients = sink.gradients();
    return absl::OkStatus();
  });
  TrainingOutcome all;
  all.result = outcomes[0].result;
  all.routes.resize(config.num_layers);
  for (int rank = 0; rank < job.num_ranks; ++rank) {
    EXPECT_TRUE(statuses[rank].ok()) << statuses[rank];
    EXPECT_EQ(Text(outcomes[rank].result), Text(all.result)) << "rank " << rank;
    for (size_t i = 0; i < outcomes[rank].result.routes.size(); ++i) {
      const std::vector<int32_t>& own = outcomes[rank].result.routes[i];
      all.routes[i].insert(all.routes[i].end(), own.begin(), own.end());
    }
    for (auto& [key, values] : outcomes[rank].gradients) {
      EXPECT_TRUE(all.gradients.emplace(key, values).second)
          << key.first << ", slot " << key.second << " on two ranks";
    }
  }
  return all;
}

void ExpectSameBits(const TrainingOutcome& actual,
                    const TrainingOutcome& expected, const std::string& name) {
  EXPECT_EQ(Text(actual.result), Text(expected.result)) << name;
  EXPECT_EQ(actual.gradients.size(), expected.gradients.size()) << name;
  for (const auto& [key, values] : expected.gradients) {
    const auto found = actual.gradients.find(key);
    if (found == actual.gradients.end()) {
      ADD_FAILURE() << name << ": no " << key.first << ", slot " << key.second;
      continue;
    }
    EXPECT_EQ(FirstMismatch(found->second, values), "")
        << name << ": " << key.first << ", slot " << key.second;
  }
}

}  // namespace octet::test
