#include "worker/checkpoint/random_checkpoint.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "worker/checkpoint/hf_writer.h"
#include "worker/checkpoint/mixtral_tensors.h"
#include "worker/checkpoint/random_values.h"
#include "worker/checkpoint/safetensors_writer.h"

namespace octet {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kPieceElements = 1 << 20;

ModelConfig Shape(int64_t vocab, int64_t hidden, int64_t ffn, int layers,
                  int heads, int kv_heads, int64_t max_position) {
  ModelConfig config;
  config.vocab_size = vocab;
  config.hidden_dim = hidden;
  config.ffn_dim = ffn;
  config.num_layers = layers;
  config.num_heads = heads;
  config.num_kv_heads = kv_heads;
  config.head_dim = static_cast<int>(hidden / heads);
  config.max_position = max_position;
  return config;
}

uint64_t TotalBytes(const std::vector<std::vector<TensorSpec>>& shards) {
  uint64_t total = 0;
  for (const auto& shard : shards) {
    for (const TensorSpec& tensor : shard) total += tensor.num_bytes();
  }
  return total;
}

// Fills the tensors of one shard on several threads.
class ShardFiller {
 public:
  ShardFiller(const std::vector<TensorSpec>& tensors,
              const RandomCheckpointOptions& options, SafetensorsWriter& writer,
              std::function<void(int64_t)> wrote)
      : tensors_(tensors),
        options_(options),
        writer_(writer),
        wrote_(std::move(wrote)) {
    for (size_t i = 0; i < tensors.size(); ++i) {
      for (int64_t begin = 0; begin < tensors[i].num_elements();
           begin += kPieceElements) {
        pieces_.push_back({i, begin});
      }
    }
  }

  absl::Status Run(int num_threads) {
    std::vector<std::thread> threads;
    for (int i = 1; i < num_threads; ++i) {
      threads.emplace_back([this] { Work(); });
    }
    Work();
    for (std::thread& thread : threads) thread.join();
    return status_;
  }

 private:
  struct Piece {
    size_t tensor;
    int64_t begin;  // element
  };

  void Work() {
    std::vector<float> values;
    std::vector<BF16> rounded;
    while (!failed_) {
      const size_t next = next_piece_++;
      if (next >= pieces_.size()) return;
      const absl::Status status = Fill(pieces_[next], &values, &rounded);
      if (!status.ok()) {
        const std::lock_guard<std::mutex> lock(mutex_);
        status_.Update(status);
        failed_ = true;
      }
    }
  }

  absl::Status Fill(const Piece& piece, std::vector<float>* values,
                    std::vector<BF16>* rounded) {
    const TensorSpec& tensor = tensors_[piece.tensor];
    const int64_t count =
        std::min(kPieceElements, tensor.num_elements() - piece.begin);
    values->resize(count);
    if (absl::EndsWith(tensor.name, "norm.weight")) {
      std::fill(values->begin(), values->end(), 1.0f);
    } else {
      const float std_dev =
          options_.std_dev > 0
              ? options_.std_dev
              : 1.0f / std::sqrt(static_cast<float>(tensor.shape.back()));
      FillNormal(RandomKey(options_.seed, tensor.name), piece.begin, std_dev,
                 absl::MakeSpan(*values));
    }
    const void* data = values->data();
    if (tensor.dtype == DType::kBF16) {
      rounded->resize(count);
      std::transform(values->begin(), values->end(), rounded->begin(), ToBF16);
      data = rounded->data();
    }
    const int64_t element_bytes = static_cast<int64_t>(SizeOf(tensor.dtype));
    OCTET_RETURN_IF_ERROR(writer_.Write(piece.tensor,
                                        piece.begin * element_bytes, data,
                                        count * element_bytes));
    const std::lock_guard<std::mutex> lock(mutex_);
    wrote_(count * element_bytes);
    return absl::OkStatus();
  }

  const std::vector<TensorSpec>& tensors_;
  const RandomCheckpointOptions& options_;
  SafetensorsWriter& writer_;
  const std::function<void(int64_t)> wrote_;
  std::vector<Piece> pieces_;
  std::atomic<size_t> next_piece_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  absl::Status status_;  // guarded by mutex_
};

absl::Status WriteShards(const std::string& dir, const ModelConfig& config,
                         const RandomCheckpointOptions& options) {
  const auto shards = SplitIntoShards(MixtralTensors(config, options.dtype),
                                      options.shard_bytes);
  const int64_t total = static_cast<int64_t>(TotalBytes(shards));
  int64_t done = 0;
  const auto wrote = [&](int64_t bytes) {
    done += bytes;
    if (options.progress) options.progress(done, total);
  };
  const int num_threads =
      options.num_threads > 0
          ? options.num_threads
          : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  for (size_t i = 0; i < shards.size(); ++i) {
    OCTET_ASSIGN_OR_RETURN(
        const std::unique_ptr<SafetensorsWriter> writer,
        SafetensorsWriter::Create(
            absl::StrCat(dir, "/", ShardName(i, shards.size())), shards[i],
            {{"format", "pt"}}));
    OCTET_RETURN_IF_ERROR(
        ShardFiller(shards[i], options, *writer, wrote).Run(num_threads));
    OCTET_RETURN_IF_ERROR(writer->Finish());
  }
  return WriteShardIndex(dir, shards);
}

absl::Status WriteFiles(const std::string& dir, ModelConfig config,
                        const RandomCheckpointOptions& options) {
  config.checkpoint_dtype = options.dtype;
  OCTET_RETURN_IF_ERROR(WriteModelFiles(dir, config, options.tokenizer_path));
  return WriteShards(dir, config, options);
}

absl::Status CheckOptions(const std::string& dir,
                          const RandomCheckpointOptions& options) {
  if (options.dtype != DType::kF32 && options.dtype != DType::kBF16) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype of a random checkpoint is ", Name(options.dtype),
                     ", expected f32 or bf16"));
  }
  if (!(options.std_dev >= 0 && options.std_dev <= 100)) {
    return absl::InvalidArgumentError(
        absl::StrCat("standard deviation of a random checkpoint is ",
                     options.std_dev, ", expected 0 to 100"));
  }
  std::error_code error;
  if (fs::exists(dir, error) &&
      !(fs::is_directory(dir, error) && fs::is_empty(dir, error))) {
    return absl::AlreadyExistsError(
        absl::StrCat(dir, ": already exists and is not an empty directory"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Span<const ModelPreset> ModelPresets() {
  static const auto* presets = new std::vector<ModelPreset>{
      {"tiny", "0.5 M parameters, for tests",
       Shape(512, 64, 128, 2, 4, 2, 2048)},
      {"small", "17 M parameters, for trying things out",
       Shape(8192, 256, 512, 4, 8, 2, 8192)},
      {"mixtral-8x7b", "the shape of Mixtral 8x7B, 47 B parameters",
       Shape(32000, 4096, 14336, 32, 32, 8, 32768)},
      {"mixtral-8x22b", "the shape of Mixtral 8x22B, 141 B parameters",
       Shape(32768, 6144, 16384, 56, 48, 8, 65536)},
  };
  return *presets;
}

absl::StatusOr<ModelConfig> FindModelPreset(absl::string_view name) {
  for (const ModelPreset& preset : ModelPresets()) {
    if (preset.name == name) return preset.config;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "preset is '", name, "', expected one of ",
      absl::StrJoin(ModelPresets(), ", ",
                    [](std::string* out, const ModelPreset& preset) {
                      absl::StrAppend(out, preset.name);
                    })));
}

absl::Status WriteRandomCheckpoint(const std::string& dir,
                                   const ModelConfig& config,
                                   const RandomCheckpointOptions& options) {
  OCTET_RETURN_IF_ERROR(ValidateModelConfig(config, "new checkpoint"));
  OCTET_RETURN_IF_ERROR(CheckOptions(dir, options));
  const fs::path target = fs::path(dir).lexically_normal();
  const fs::path clean = target.has_filename() ? target : target.parent_path();
  const std::string temp = absl::StrCat(clean.string(), ".tmp-", getpid());
  std::error_code error;
  if (!fs::create_directory(temp, error)) {
    return absl::FailedPreconditionError(
        absl::StrCat(dir, ": cannot create directory: ",
                     error ? error.message() : "its temporary name is taken"));
  }
  absl::Cleanup remove_temp = [&temp] {
    std::error_code ignored;  // the first error is the one to report
    fs::remove_all(temp, ignored);
  };
  OCTET_RETURN_IF_ERROR(WriteFiles(temp, config, options));
  fs::rename(temp, clean, error);
  if (error) {
    return absl::FailedPreconditionError(absl::StrCat(
        dir, ": cannot rename the finished checkpoint: ", error.message()));
  }
  return SyncDirectory(clean.parent_path().string());
}

}  // namespace octet
