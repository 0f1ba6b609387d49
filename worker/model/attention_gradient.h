// The backward pass of worker/model/attention.h:
//
//   dout = dresidual Wo ; dq, dk, dv = attention'(q, cache, out, dout)
//   dx = [rotate back(dq), rotate back(dk), dv] Wqkv
//
// Threads: one at a time; the backend, which can train, outlives it.
#ifndef OCTET_WORKER_MODEL_ATTENTION_GRADIENT_H_
#define OCTET_WORKER_MODEL_ATTENTION_GRADIENT_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "worker/model/attention.h"
#include "worker/model/config.h"
#include "worker/model/weights.h"
#include "worker/nn/gradient_sink.h"
#include "worker/nn/linear.h"
#include "worker/nn/scratch.h"

namespace octet {

class AttentionGradient {
 public:
  AttentionGradient(Backend* backend, const ModelConfig& config, DType dtype);

  // After attention.ForwardTraining with the same arguments, T >= 1. dy [T, H]
  // f32, the gradient of the residual; dx [T, H] f32, written: that of x.
  absl::Status Backward(int layer, const LayerWeights& weights,
                        const Attention& attention, const KvCacheView& cache,
                        ConstTensor x, const Attention::Kept& kept,
                        const DropoutRows& dropout,
                        absl::Span<const SlotRows> slots, ConstTensor dy,
                        GradientSink& sink, Tensor dx, Stream& stream);

  int64_t size_bytes() const;
  // Device memory for T tokens.
  static int64_t Bytes(const ModelConfig& config, DType dtype,
                       int64_t num_tokens);

 private:
  Backend* backend_;
  const ModelConfig config_;
  const DType dtype_;
  Linear linear_;
  Scratch dy_;       // [T, H] compute dtype
  Scratch dout_;     // [T, N_q D] f32
  Scratch dq_;       // [T, N_q D] f32
  Scratch dk_, dv_;  // [T, N_kv D] f32
  Scratch dqkv_;     // [T, (N_q + 2 N_kv) D] compute dtype
};

}  // namespace octet

#endif  // OCTET_WORKER_MODEL_ATTENTION_GRADIENT_H_
