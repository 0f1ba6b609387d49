#include "worker/train/export.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/training_ops.h"
#include "worker/checkpoint/hf_writer.h"
#include "worker/checkpoint/safetensors_writer.h"
#include "worker/checkpoint/staged_directory.h"
#include "worker/comm/group_messages.h"
#include "worker/train/file_op.h"
#include "worker/train/refusal.h"

namespace octet {
namespace {

constexpr char kTokenizerFile[] = "/tokenizer.model";

absl::Status CopyToHost(WeightTrainer& trainer, ConstTensor from, float* to) {
  OCTET_RETURN_IF_ERROR(trainer.model().backend->CopyToHost(
      to, from.data(), from.num_bytes(), trainer.stream()));
  return trainer.model().backend->Synchronize(trainer.stream());
}

// Rank 0 begins and commits the directory, `write` fills it on every rank.
// `write` takes part in the same collectives on every rank, or returns an error
// of the communicator.
template <typename Write>
absl::Status WriteStaged(WeightTrainer& trainer, const std::string& path,
                         int64_t step_id, const Write& write) {
  Communicator& communicator = *trainer.model().communicator;
  const OpInfo op = FileOp("export weights", step_id);
  const bool root = communicator.rank() == 0;
  const StagedDirectory directory(path);
  OCTET_RETURN_IF_ERROR(AgreeOnStatus(
      communicator, root ? directory.Begin() : absl::OkStatus(), op));
  absl::Status status =
      AgreeOnStatus(communicator, write(directory.staging_path()), op);
  if (status.ok()) {
    status = AgreeOnStatus(communicator,
                           root ? directory.Commit() : absl::OkStatus(), op);
  }
  if (!status.ok() && root) directory.Abandon();
  return status;
}

std::vector<TensorSpec> AdapterTensors(const ParameterSet& parameters) {
  std::vector<TensorSpec> specs;
  for (const Parameter& parameter : parameters.parameters()) {
    specs.push_back(
        {PeftTensorName(parameter.name), DType::kF32, parameter.shape()});
  }
  return specs;
}

// Which rank writes which of the model's tensors, and into which shards. The
// same on every rank.
struct ModelFiles {
  std::vector<std::vector<TensorSpec>> shards;  // of all ranks
  std::vector<int> shard_rank;                  // who writes it
};

int WriterOf(const Parameter& parameter, const Placement& placement) {
  const int expert = parameter.weight.expert_id;
  if (expert >= 0) return placement.RanksOf(expert)[0];
  const int num_ranks = placement.num_ranks();
  if (parameter.weight.kind == WeightKind::kLmHead) return num_ranks - 1;
  return std::max(parameter.weight.layer, 0) % num_ranks;
}

ModelFiles PlanFiles(const std::vector<Parameter>& parameters,
                     const Placement& placement, DType dtype,
                     uint64_t shard_bytes) {
  std::vector<std::vector<TensorSpec>> of_rank(placement.num_ranks());
  for (const Parameter& parameter : parameters) {
    of_rank[WriterOf(parameter, placement)].push_back(
        {parameter.name, dtype, parameter.shape()});
  }
  ModelFiles files;
  for (size_t rank = 0; rank < of_rank.size(); ++rank) {
    for (auto& shard : SplitIntoShards(std::move(of_rank[rank]), shard_bytes)) {
      files.shards.push_back(std::move(shard));
      files.shard_rank.push_back(static_cast<int>(rank));
    }
  }
  return files;
}

// Writes this rank's shards of the model.
class ModelExporter {
 public:
  ModelExporter(WeightTrainer& trainer, float lora_scale)
      : trainer_(trainer),
        lora_scale_(lora_scale),
        parameters_(ModelParameters(*trainer.model().config)),
        weight_(trainer.model().backend),
        a_(trainer.model().backend),
        bt_(trainer.model().backend) {
    for (size_t i = 0; i < parameters_.size(); ++i) {
      by_name_[parameters_[i].name] = i;
    }
  }

  const std::vector<Parameter>& parameters() const { return parameters_; }

  // Collective: the adapters of the tensors that this rank writes.
  absl::Status GatherAdapters(int64_t step_id) {
    const Placement& placement = *trainer_.model().placement;
    const auto wants = [&](int rank, int index) {
      const Parameter& parameter = trainer_.parameters().parameters()[index];
      return parameter.weight.part != WeightPart::kBase &&
             WriterOf(parameter, placement) == rank;
    };
    return trainer_.exchange().ForEach(
        trainer_.optimizer(), wants,
        [&](int index, int64_t /*row*/, ConstTensor values) {
          const Parameter& parameter =
              trainer_.parameters().parameters()[index];
          std::vector<float>& to = adapters_[parameter.name];
          to.resize(to.size() + values.num_elements());
          return CopyToHost(trainer_, values,
                            to.data() + to.size() - values.num_elements());
        },
        step_id, trainer_.stream());
  }

  absl::Status WriteShard(const std::string& path,
                          const std::vector<TensorSpec>& tensors) {
    OCTET_ASSIGN_OR_RETURN(
        const std::unique_ptr<SafetensorsWriter> writer,
        SafetensorsWriter::Create(path, tensors, {{"format", "pt"}}));
    std::vector<float> values;
    std::vector<BF16> rounded;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const Parameter& parameter = parameters_[by_name_.at(tensors[i].name)];
      values.resize(parameter.num_elements());
      OCTET_RETURN_IF_ERROR(
          trainer_.live().Read(parameter, 0, parameter.num_elements(),
                               values.data(), trainer_.stream()));
      OCTET_RETURN_IF_ERROR(AddAdapter(parameter, values));
      const void* data = values.data();
      if (tensors[i].dtype == DType::kBF16) {
        rounded.resize(values.size());
        std::transform(values.begin(), values.end(), rounded.begin(), ToBF16);
        data = rounded.data();
      }
      OCTET_RETURN_IF_ERROR(writer->Write(i, 0, data, tensors[i].num_bytes()));
    }
    return writer->Finish();
  }

 private:
  // values += s B A: the gradient of a weight whose rows are A's, against B^T.
  absl::Status AddAdapter(const Parameter& parameter,
                          std::vector<float>& values) {
    const absl::string_view module = ModuleOf(parameter.name);
    const auto a = adapters_.find(absl::StrCat(module, ".lora_A.weight"));
    const auto b = adapters_.find(absl::StrCat(module, ".lora_B.weight"));
    if (a == adapters_.end() || b == adapters_.end()) return absl::OkStatus();
    const int64_t n = parameter.rows, k = parameter.cols;
    const int64_t r = static_cast<int64_t>(a->second.size()) / k;
    std::vector<float> transposed(b->second.size());
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < r; ++j) {
        transposed[j * n + i] = b->second[i * r + j];
      }
    }
    OCTET_ASSIGN_OR_RETURN(const Tensor weight, Upload(weight_, values, n, k));
    OCTET_ASSIGN_OR_RETURN(const Tensor a_rows, Upload(a_, a->second, r, k));
    OCTET_ASSIGN_OR_RETURN(const Tensor b_rows, Upload(bt_, transposed, r, n));
    OCTET_RETURN_IF_ERROR(train_ops::GemmBackwardWeight(
        *trainer_.model().backend->training(), a_rows, b_rows, lora_scale_,
        /*accumulate=*/true, weight, trainer_.stream()));
    return CopyToHost(trainer_, weight, values.data());
  }

  absl::StatusOr<Tensor> Upload(Scratch& memory,
                                const std::vector<float>& values, int64_t rows,
                                int64_t cols) {
    OCTET_ASSIGN_OR_RETURN(
        const Tensor tensor,
        memory.Get(DType::kF32, {rows, cols}, trainer_.stream()));
    OCTET_RETURN_IF_ERROR(trainer_.model().backend->CopyToDevice(
        tensor.data(), values.data(), tensor.num_bytes(), trainer_.stream()));
    return tensor;
  }

  WeightTrainer& trainer_;
  const float lora_scale_;
  const std::vector<Parameter> parameters_;
  absl::flat_hash_map<std::string, size_t> by_name_;
  absl::flat_hash_map<std::string, std::vector<float>> adapters_;
  Scratch weight_, a_, bt_;
};

// What rank 0 writes beside the shards.
absl::Status WriteCommonFiles(const RankModel& model, const std::string& dir,
                              const ModelFiles& files,
                              const std::string& checkpoint_dir) {
  ModelConfig config = *model.config;
  config.checkpoint_dtype = model.weights->dtype;
  std::string tokenizer = checkpoint_dir + kTokenizerFile;
  std::error_code ignored;
  if (!std::filesystem::exists(tokenizer, ignored)) tokenizer.clear();
  OCTET_RETURN_IF_ERROR(WriteModelFiles(dir, config, tokenizer));
  return WriteShardIndex(dir, files.shards);
}

}  // namespace

absl::StatusOr<ExportedFiles> ExportAdapter(WeightTrainer& trainer,
                                            const std::string& path,
                                            const AdapterConfig& config,
                                            int64_t step_id) {
  const bool root = trainer.model().communicator->rank() == 0;
  const std::vector<TensorSpec> specs = AdapterTensors(trainer.parameters());
  ExportedFiles out;
  out.files = {PeftAdapter::kTensorsFile};
  for (const TensorSpec& spec : specs) {
    out.num_bytes += static_cast<int64_t>(spec.num_bytes());
  }
  const auto write = [&](const std::string& dir) -> absl::Status {
    absl::StatusOr<std::unique_ptr<SafetensorsWriter>> writer;
    // An error of rank 0's files must not keep it from the collectives.
    absl::Status status;
    if (root) {
      writer = SafetensorsWriter::Create(
          absl::StrCat(dir, "/", PeftAdapter::kTensorsFile), specs,
          {{"format", "pt"}});
      status = writer.status();
    }
    std::vector<float> values;
    OCTET_RETURN_IF_ERROR(EndsGroup(trainer.exchange().ForEach(
        trainer.optimizer(), [](int rank, int /*index*/) { return rank == 0; },
        [&](int index, int64_t row, ConstTensor piece) -> absl::Status {
          if (!status.ok()) return absl::OkStatus();
          values.resize(piece.num_elements());
          OCTET_RETURN_IF_ERROR(CopyToHost(trainer, piece, values.data()));
          status = (*writer)->Write(index,
                                    row * piece.cols() * int64_t{sizeof(float)},
                                    values.data(), piece.num_bytes());
          return absl::OkStatus();
        },
        step_id, trainer.stream())));
    if (!root || !status.ok()) return status;
    OCTET_RETURN_IF_ERROR((*writer)->Finish());
    return WriteFileAtomically(absl::StrCat(dir, "/", PeftAdapter::kConfigFile),
                               AdapterConfigToJson(config));
  };
  OCTET_RETURN_IF_ERROR(WriteStaged(trainer, path, step_id, write));
  return out;
}

absl::StatusOr<ExportedFiles> ExportModel(
    WeightTrainer& trainer, const std::string& path, uint64_t shard_bytes,
    float lora_scale, const std::string& checkpoint_dir, int64_t step_id) {
  const RankModel& model = trainer.model();
  const int rank = model.communicator->rank();
  ModelExporter exporter(trainer, lora_scale);
  const ModelFiles files = PlanFiles(exporter.parameters(), *model.placement,
                                     model.weights->dtype, shard_bytes);
  ExportedFiles out;
  for (size_t i = 0; i < files.shards.size(); ++i) {
    out.files.push_back(ShardName(i, files.shards.size()));
    for (const TensorSpec& spec : files.shards[i]) {
      out.num_bytes += static_cast<int64_t>(spec.num_bytes());
    }
  }
  const auto write = [&](const std::string& dir) -> absl::Status {
    OCTET_RETURN_IF_ERROR(EndsGroup(exporter.GatherAdapters(step_id)));
    for (size_t i = 0; i < files.shards.size(); ++i) {
      if (files.shard_rank[i] != rank) continue;
      OCTET_RETURN_IF_ERROR(exporter.WriteShard(
          absl::StrCat(dir, "/", out.files[i]), files.shards[i]));
    }
    if (rank != 0) return absl::OkStatus();
    return WriteCommonFiles(model, dir, files, checkpoint_dir);
  };
  OCTET_RETURN_IF_ERROR(WriteStaged(trainer, path, step_id, write));
  return out;
}

}  // namespace octet
