// A run's weights as files that other tools read: an adapter in PEFT's layout,
// or the whole model in Hugging Face's.
//
// Both are collective; errors are refusals unless refusal.h says otherwise. No
// rank holds more than its own weights and one tensor: the full model is
// written by all ranks, each its experts and its part of the layers, into shard
// files of its own; adapters travel to rank 0 piece by piece.
#ifndef OCTET_WORKER_TRAIN_EXPORT_H_
#define OCTET_WORKER_TRAIN_EXPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/checkpoint/peft_adapter.h"
#include "worker/train/weight_trainer.h"

namespace octet {

struct ExportedFiles {
  int64_t num_bytes = 0;           // of tensors
  std::vector<std::string> files;  // names of those with tensors
};

// f32 values; lora_B is B itself, without the scale.
absl::StatusOr<ExportedFiles> ExportAdapter(WeightTrainer& trainer,
                                            const std::string& path,
                                            const AdapterConfig& config,
                                            int64_t step_id);

// Tensors of the compute dtype; adapters are added to their weights, W + s B A
// in f32 from the masters. The tokenizer of `checkpoint_dir` goes along if
// there is one.
absl::StatusOr<ExportedFiles> ExportModel(
    WeightTrainer& trainer, const std::string& path, uint64_t shard_bytes,
    float lora_scale, const std::string& checkpoint_dir, int64_t step_id);

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_EXPORT_H_
