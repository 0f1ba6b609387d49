// Small checkpoints of any layout, good and broken, made in tests.
#ifndef OCTET_TESTS_WORKER_CHECKPOINT_CHECKPOINT_FILES_H_
#define OCTET_TESTS_WORKER_CHECKPOINT_CHECKPOINT_FILES_H_

#include <map>
#include <string>
#include <vector>

#include "kernels/dtype.h"
#include "worker/checkpoint/safetensors_writer.h"
#include "worker/model/config.h"

namespace octet::test {

struct TensorData {
  TensorSpec spec;
  std::string bytes;
};
using TensorMap = std::map<std::string, TensorData>;

// L 2, H 12, F 20, N_q 4, N_kv 2, D 6, E 4, K 2, V 33.
ModelConfig SmallConfig();

// Every tensor of the per-expert layout with seeded random elements (finite
// values of `dtype`: f32, bf16 or f16).
TensorMap RandomTensors(const ModelConfig& config, DType dtype, uint64_t seed);

// The same weights in the fused layout of transformers 5.
TensorMap FuseExperts(const TensorMap& tensors, const ModelConfig& config);

// Writes them as one file.
void WriteTensors(const std::string& path, const TensorMap& tensors);
// Writes them to `dir` as `num_shards` shards, dealt out in turn, and an index.
void WriteShards(const std::string& dir, const TensorMap& tensors,
                 int num_shards);

// A file with any header: length, text, data.
void WriteRawSafetensors(const std::string& path, const std::string& header,
                         const std::string& data);
void WriteText(const std::string& path, const std::string& text);
std::string ReadText(const std::string& path);

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_CHECKPOINT_CHECKPOINT_FILES_H_
