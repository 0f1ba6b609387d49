// The end of the model in training: final norm, head and cross-entropy of the
// rows that have a label, a chunk of rows at a time, and straight back. Logits
// of all rows never exist.
//
// A chunk holds whole slots, or a part of one slot that is too long, cut from
// the slot's first row: so what is added up for a slot does not depend on the
// slots beside it.
//
// Threads: one at a time. Everything handed in outlives it.
#ifndef OCTET_WORKER_MODEL_TRAINING_HEAD_H_
#define OCTET_WORKER_MODEL_TRAINING_HEAD_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "worker/model/config.h"
#include "worker/model/training_batch.h"
#include "worker/model/weights.h"
#include "worker/nn/gradient_sink.h"
#include "worker/nn/scratch.h"

namespace octet {

class TrainingHead {
 public:
  TrainingHead(Backend* backend, const ModelConfig& config,
               const ModelWeights* weights, int64_t max_rows);

  // x [T, H] f32, the last layer's output; losses: of each label of the layout,
  // host. Waits for the stream.
  absl::Status Forward(const TrainingLayout& layout, ConstTensor x,
                       absl::Span<float> losses, Stream& stream);

  // And the gradients of sum scales[i] losses[i]: dx [T, H] f32, written.
  // scales: of each label, host.
  absl::Status ForwardBackward(const TrainingLayout& layout, ConstTensor x,
                               absl::Span<const float> scales,
                               absl::Span<float> losses, GradientSink& sink,
                               Tensor dx, Stream& stream);

  int64_t size_bytes() const;
  // Device memory for T tokens.
  static int64_t Bytes(const ModelConfig& config, DType dtype, int64_t max_rows,
                       int64_t num_tokens);

 private:
  struct Chunk {
    int64_t begin = 0;  // among the labels
    int64_t end = 0;
    std::vector<SlotRows> slots;  // rows of the chunk
  };
  // A chunk on the device.
  struct Rows {
    Tensor x;                     // [n, H] f32
    Tensor normed;                // [n, H] compute dtype
    Tensor logits;                // [n, V] f32
    ConstTensor targets, scales;  // [n]
    Tensor losses;                // [n] f32
  };
  std::vector<Chunk> Chunks(const TrainingLayout& layout) const;
  absl::Status Upload(const TrainingLayout& layout,
                      absl::Span<const float> scales, Stream& stream);
  absl::StatusOr<Rows> Logits(const Chunk& chunk, ConstTensor x,
                              Stream& stream);
  absl::Status Backward(const Chunk& chunk, const Rows& rows,
                        GradientSink& sink, Stream& stream);
  absl::Status Scatter(const TrainingLayout& layout, Tensor dx, Stream& stream);
  absl::Status ReadLosses(absl::Span<float> losses, Stream& stream);

  Backend* backend_;
  const ModelConfig config_;
  const ModelWeights* weights_;
  const int64_t max_rows_;
  Tensor label_rows_, label_ids_, scales_, losses_, label_dx_;
  std::vector<float> host_scales_;
  std::vector<int32_t> host_sources_;
  Scratch label_rows_memory_, label_ids_memory_, scales_memory_;  // [n]
  Scratch losses_memory_;                                         // [n] f32
  Scratch label_dx_memory_;  // [n + 1, H] f32, the last row zero
  Scratch sources_memory_;   // [T] i32
  Scratch x_, normed_, logits_, dlogits_, dnormed_;  // of a chunk
};

}  // namespace octet

#endif  // OCTET_WORKER_MODEL_TRAINING_HEAD_H_
