// One rank's forward pass of a Mixtral-family model: attention over its own
// sequences, experts shared with the whole group.
//
//   x = embedding[ids]                                        [T, H] f32
//   each layer: x += attention(norm(x)) ; x += moe(norm(x))
//   logits(rows) = norm(x[rows]) Wlm^T                        [n, V] f32
//
// The residual stream x is f32; what a matrix multiplies has the compute dtype,
// and so have cached keys and values. Every rank of the group calls Forward for
// every step with the same rank_tokens, with zero tokens too; Logits involves
// this rank alone.
//
// Memory: buffers for max_step_tokens rows are allocated at construction. What
// other ranks may send to the experts here grows on demand (see worker/moe).
//
// Threads: one at a time. Everything handed to Create outlives it.
#ifndef OCTET_WORKER_MODEL_TRANSFORMER_H_
#define OCTET_WORKER_MODEL_TRANSFORMER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "worker/comm/communicator.h"
#include "worker/model/attention.h"
#include "worker/model/config.h"
#include "worker/model/kv_cache.h"
#include "worker/model/weights.h"
#include "worker/moe/moe_layer.h"
#include "worker/moe/placement.h"
#include "worker/nn/scratch.h"

namespace octet {

struct TransformerLimits {
  int64_t max_step_tokens = 512;   // T at most
  int64_t max_logit_rows = 128;    // rows of one Logits call
  int moe_chunks = 1;              // MoeShape::max_chunks
  int64_t min_chunk_tokens = 256;  // MoeShape::min_chunk_tokens
};

// Seconds since construction, by phase, on the host's clock.
struct ForwardSeconds {
  double attention = 0;
  MoeSeconds moe;
  double head = 0;
};

class Transformer {
 public:
  static absl::StatusOr<std::unique_ptr<Transformer>> Create(
      Backend* backend, Communicator* communicator, const ModelConfig& config,
      const Placement* placement, const ModelWeights* weights,
      const KvCache* cache, const TransformerLimits& limits);

  // Runs all layers over the slices, whose tokens one after the other are rows
  // 0..T-1; keys and values go to the slots that their block tables say. The
  // arguments must be valid (worker/serve checks plans): ids in [0, V), blocks
  // in range, no slot written twice, T = rank_tokens[rank] <= max_step_tokens.
  // `routes`, unless nullptr, becomes [L] of [T, K] experts of the rows, host.
  absl::Status Forward(int64_t step_id, absl::Span<const SequenceSlice> slices,
                       absl::Span<const int64_t> rank_tokens,
                       std::vector<std::vector<int32_t>>* routes = nullptr);

  // Logits [n, V] f32 of n <= max_logit_rows rows of the last Forward, n >= 1;
  // valid until the next call. `rows` (host) is read before it returns.
  absl::StatusOr<ConstTensor> Logits(absl::Span<const int32_t> rows);

  Stream& stream() { return *stream_; }
  int64_t max_logit_rows() const { return limits_.max_logit_rows; }
  const ForwardSeconds& seconds() const { return seconds_; }
  // [L, E] rows that this rank computed for each expert.
  absl::Span<const int64_t> expert_rows() const { return moe_.expert_rows(); }
  // Device memory held beside weights and cache.
  int64_t workspace_bytes() const;

 private:
  Transformer(Backend* backend, Communicator* communicator,
              const ModelConfig& config, const Placement* placement,
              const ModelWeights* weights, const KvCache* cache,
              const TransformerLimits& limits);
  absl::Status Embed(absl::Span<const SequenceSlice> slices, Tensor x);
  absl::Status RunAttention(int layer, Tensor x, Tensor normed);

  Backend* backend_;
  const ModelConfig config_;
  const ModelWeights* weights_;
  const KvCache* cache_;
  const TransformerLimits limits_;
  std::unique_ptr<Stream> stream_;
  Attention attention_;
  MoeLayer moe_;
  std::vector<MoeWeights> moe_weights_;  // [L]
  std::vector<int32_t> host_ids_;
  int64_t num_tokens_ = 0;  // T of the last Forward
  Scratch ids_;             // [T] i32
  Scratch x_;               // [T, H] f32
  Scratch normed_;          // [T, H] compute dtype
  Scratch head_rows_;       // [n] i32
  Scratch head_x_;          // [n, H] f32
  Scratch head_normed_;     // [n, H] compute dtype
  Scratch logits_;          // [n, V] f32
  ForwardSeconds seconds_;
};

}  // namespace octet

#endif  // OCTET_WORKER_MODEL_TRANSFORMER_H_
