// The attention half of a transformer layer:
//
//   q, k, v = x Wqkv^T ; rotate q, k ; write k, v into the cache
//   residual += attention(q, cache) Wo^T
//
// Sequences live on this rank only, so no other rank is involved. One object
// serves all layers. Threads: one at a time; the backend outlives it.
#ifndef OCTET_WORKER_MODEL_ATTENTION_H_
#define OCTET_WORKER_MODEL_ATTENTION_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "worker/model/config.h"
#include "worker/model/weights.h"
#include "worker/nn/linear.h"
#include "worker/nn/scratch.h"

namespace octet {

// Consecutive tokens of one sequence, to be computed on this rank.
struct SequenceSlice {
  int64_t start_position = 0;  // of token_ids[0]; what lies before is cached
  absl::Span<const int32_t> token_ids;
  // The sequence's block table, covering at least this slice's last position.
  absl::Span<const int32_t> block_ids;
};

class Attention {
 public:
  Attention(Backend* backend, const ModelConfig& config, DType dtype);

  // Allocates the buffers for steps of up to max_tokens tokens.
  absl::Status Reserve(int64_t max_tokens, Stream& stream);

  // Says where the tokens of the coming step lie: slices one after the other
  // are the T rows of Forward. What the spans refer to must live until the
  // step is done.
  absl::Status Prepare(absl::Span<const SequenceSlice> slices, int block_tokens,
                       Stream& stream);

  // x [T, H] compute dtype, T >= 1; residual [T, H] f32, added to.
  absl::Status Forward(const LayerWeights& weights, const KvCacheView& cache,
                       ConstTensor x, Tensor residual, Stream& stream);

  // What the backward pass needs beside the cache.
  struct Kept {
    Tensor q;    // [T, N_q D] f32, rotated
    Tensor out;  // [T, N_q D] compute dtype
  };
  // The same, with q and out in the caller's memory and adapters that drop.
  absl::Status ForwardTraining(int layer, const LayerWeights& weights,
                               const KvCacheView& cache, ConstTensor x,
                               const DropoutRows& dropout, const Kept& kept,
                               Tensor residual, Stream& stream);

  // Of the last Prepare.
  ConstTensor positions() const { return positions_; }  // [T] i32
  absl::Span<const AttentionSequence> sequences() const { return sequences_; }
  RopeParams rope() const;

  // Device memory held.
  int64_t size_bytes() const;

 private:
  // [T, (N_q + 2 N_kv) D] f32
  absl::StatusOr<Tensor> Qkv(int64_t num_tokens, Stream& stream);
  absl::StatusOr<Kept> OwnMemory(int64_t num_tokens, Stream& stream);

  Backend* backend_;
  const ModelConfig config_;
  const DType dtype_;
  std::vector<int32_t> host_positions_;  // [T]
  std::vector<int64_t> host_slots_;      // [T]
  std::vector<AttentionSequence> sequences_;
  Tensor positions_, slots_;
  Scratch positions_memory_, slots_memory_;
  Linear linear_;
  Scratch qkv_, q_, out_;
};

}  // namespace octet

#endif  // OCTET_WORKER_MODEL_ATTENTION_H_
