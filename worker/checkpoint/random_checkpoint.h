// Makes checkpoints with seeded random weights, in Hugging Face's layout, for
// tests and scaling experiments.
#ifndef OCTET_WORKER_CHECKPOINT_RANDOM_CHECKPOINT_H_
#define OCTET_WORKER_CHECKPOINT_RANDOM_CHECKPOINT_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/dtype.h"
#include "worker/model/config.h"

namespace octet {

// A named shape. `config` has the defaults of a new checkpoint (bf16, bos 1,
// eos 2).
struct ModelPreset {
  absl::string_view name;         // "tiny"
  absl::string_view description;  // for --help
  ModelConfig config;
};
absl::Span<const ModelPreset> ModelPresets();
// INVALID_ARGUMENT lists the known names.
absl::StatusOr<ModelConfig> FindModelPreset(absl::string_view name);

struct RandomCheckpointOptions {
  uint64_t seed = 0;
  DType dtype = DType::kBF16;  // f32 or bf16
  // Standard deviation of matrices and embedding. 0: 1/sqrt(inputs) for each,
  // which keeps activations near unit scale whatever the shape. Norms are 1.
  float std_dev = 0.02f;
  uint64_t shard_bytes = 5'000'000'000;  // of tensor data in one file, at most
                                         // (but one tensor at least)
  std::string tokenizer_path;  // copied to tokenizer.model when not empty
  int num_threads = 0;         // 0: as many as there are processors
  // Called now and then, one thread at a time. Bytes of tensor data.
  std::function<void(int64_t bytes_done, int64_t bytes_total)> progress;
};

// Writes config.json, generation_config.json and model.safetensors (or shards
// and an index) to `dir`, whose parent exists. The content of a tensor depends
// on seed, std_dev, dtype and its name and shape alone. ALREADY_EXISTS when
// `dir` holds anything. All or nothing: a directory beside it is filled, synced
// and renamed.
absl::Status WriteRandomCheckpoint(const std::string& dir,
                                   const ModelConfig& config,
                                   const RandomCheckpointOptions& options);

}  // namespace octet

#endif  // OCTET_WORKER_CHECKPOINT_RANDOM_CHECKPOINT_H_
