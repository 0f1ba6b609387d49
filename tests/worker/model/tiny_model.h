// A small Mixtral made in memory, and one rank's transformer over it.
#ifndef OCTET_TESTS_WORKER_MODEL_TINY_MODEL_H_
#define OCTET_TESTS_WORKER_MODEL_TINY_MODEL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/reference/reference_mixtral.h"
#include "worker/comm/communicator.h"
#include "worker/model/config.h"
#include "worker/model/kv_cache.h"
#include "worker/model/transformer.h"
#include "worker/model/weights.h"
#include "worker/moe/placement.h"

namespace octet::test {

// What the gate does with the tokens.
enum class Routing {
  kRandom,
  kSkewed,  // every token to experts 0, 1, ..., in falling order
  kTied,    // all gate logits zero: the lowest ids
};

struct TinyExpert {
  std::vector<float> w13, w2;  // [2F, H], [H, F]
};

struct TinyLayer {
  std::vector<float> input_norm, qkv, o, post_attention_norm, gate;
  std::vector<TinyExpert> experts;  // all E
};

// All weights in f32, exactly representable in bf16.
struct TinyModel {
  ModelConfig config;
  std::vector<float> embedding, final_norm, lm_head;
  std::vector<TinyLayer> layers;
};

// H 32, F 48, L 2, 4 query and 2 key/value heads of 8, V 61, E 8, K 2.
ModelConfig TinyConfig();
TinyModel MakeTinyModel(const ModelConfig& config, Routing routing,
                        uint32_t seed);

absl::StatusOr<ModelWeights> PackTinyModel(const TinyModel& model,
                                           Backend& backend, DType dtype,
                                           absl::Span<const int> experts);

// The same weights in double precision; with `bf16` it rounds where Octet does.
ReferenceMixtral ReferenceOf(const TinyModel& model, bool bf16);

struct TinyRankOptions {
  DType dtype = DType::kF32;
  std::string placement;
  int64_t num_blocks = 64;
  int block_tokens = 4;
  int64_t max_step_tokens = 512;
  CpuBackendOptions backend;
};

// Everything a rank needs for Forward. Not movable: members point at others.
struct TinyRank {
  TinyRank() = default;
  TinyRank(const TinyRank&) = delete;

  std::unique_ptr<Backend> backend;
  std::optional<Placement> placement;
  ModelWeights weights;
  std::optional<KvCache> cache;
  std::unique_ptr<Transformer> transformer;
};

absl::StatusOr<std::unique_ptr<TinyRank>> NewTinyRank(
    const TinyModel& model, const TinyRankOptions& options,
    Communicator& communicator);

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_MODEL_TINY_MODEL_H_
