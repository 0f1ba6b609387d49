// Where the backward pass leaves the gradients of weights: the seam between
// the model (which knows activations) and worker/train (which knows
// parameters, sums and the optimizer).
//
// A *slot* is one microbatch of the global batch: a packed row of one or more
// sequences. Slots are numbered over all ranks, on from those that wait for an
// optimizer step. Gradients are summed per slot first, and slots in a fixed
// binary tree, so the sums do not depend on which rank computed a slot.
//
// A weight's calls come by rising slot and most slots come once. The exceptions
// add up in the order of the calls: the head and the final norm get a long
// slot's rows in several calls, and an embedding that is tied to the head gets
// all slots of the head's products, then all slots again from AddEmbedding.
#ifndef OCTET_WORKER_NN_GRADIENT_SINK_H_
#define OCTET_WORKER_NN_GRADIENT_SINK_H_

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace octet {

// Rows [begin, end) belong to `slot`. Lists are by rising slot; slots without
// rows may be left out.
struct SlotRows {
  int64_t slot = 0;
  int64_t begin = 0;
  int64_t end = 0;
};

// The tensors that ModelWeights holds (fused as there).
enum class WeightKind {
  kEmbedding,          // [V, H]
  kInputNorm,          // [H]
  kQkv,                // [(N_q + 2 N_kv) D, H]
  kO,                  // [H, N_q D]
  kPostAttentionNorm,  // [H]
  kGate,               // [E, H]
  kW13,                // [2F, H], of an expert
  kW2,                 // [H, F], of an expert
  kFinalNorm,          // [H]
  kLmHead,             // [V, H]
};

// What of a linear layer: y = x W^T + scale (dropout(x) A^T) B^T.
enum class WeightPart {
  kBase,   // W [n, k]
  kLoraA,  // A [r, k], the stacked A of the layer's adapted modules
  kLoraB,  // B [n, r], block diagonal over those modules
};

struct WeightId {
  WeightKind kind = WeightKind::kEmbedding;
  int layer = -1;      // -1: embedding, final norm, head
  int expert_id = -1;  // global; -1: not of an expert
  WeightPart part = WeightPart::kBase;

  friend bool operator==(const WeightId&, const WeightId&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const WeightId& id) {
    return H::combine(std::move(h), id.kind, id.layer, id.expert_id, id.part);
  }
};

// Threads: one at a time. Calls put work on the stream and return; the tensors
// must stay as they are until the stream is past it.
class GradientSink {
 public:
  virtual ~GradientSink() = default;

  // False: the weight is frozen; do not compute what only it needs.
  virtual bool Wants(const WeightId& id) const = 0;
  // dW of each slot = scale dy^T x over the slot's rows. x [T, k], dy [T, n] of
  // the compute dtype.
  virtual absl::Status AddProduct(const WeightId& id, ConstTensor x,
                                  ConstTensor dy, float scale,
                                  absl::Span<const SlotRows> slots,
                                  Stream& stream) = 0;
  // A norm's weight (TrainingBackend::RmsNormBackwardWeight). x, dy [T, H] f32.
  virtual absl::Status AddNorm(const WeightId& id, ConstTensor x, float eps,
                               ConstTensor dy, absl::Span<const SlotRows> slots,
                               Stream& stream) = 0;
  // The embedding (TrainingBackend::EmbeddingBackward). dx [T, H] f32, ids [T].
  virtual absl::Status AddEmbedding(ConstTensor dx, ConstTensor ids,
                                    absl::Span<const SlotRows> slots,
                                    Stream& stream) = 0;
};

}  // namespace octet

#endif  // OCTET_WORKER_NN_GRADIENT_SINK_H_
