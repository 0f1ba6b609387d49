// The files of a checkpoint in Hugging Face's layout: how tensors are spread
// over shards, and everything beside them.
#ifndef OCTET_WORKER_CHECKPOINT_HF_WRITER_H_
#define OCTET_WORKER_CHECKPOINT_HF_WRITER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "worker/checkpoint/safetensors_writer.h"
#include "worker/model/config.h"

namespace octet {

inline constexpr uint64_t kDefaultShardBytes = 5'000'000'000;

// Tensors in their order, in files of at most `shard_bytes` of data, but of one
// tensor at least. Without tensors: no shard.
std::vector<std::vector<TensorSpec>> SplitIntoShards(
    std::vector<TensorSpec> tensors, uint64_t shard_bytes);

// "model-00001-of-00002.safetensors", from index 0; "model.safetensors" when it
// is the only one.
std::string ShardName(size_t index, size_t count);

// model.safetensors.index.json; nothing when there is only one shard.
absl::Status WriteShardIndex(
    const std::string& dir, const std::vector<std::vector<TensorSpec>>& shards);

// config.json and generation_config.json, and `tokenizer_path` copied to
// tokenizer.model unless it is empty.
absl::Status WriteModelFiles(const std::string& dir, const ModelConfig& config,
                             const std::string& tokenizer_path);

}  // namespace octet

#endif  // OCTET_WORKER_CHECKPOINT_HF_WRITER_H_
