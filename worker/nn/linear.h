// Linear layers with their optional low-rank change (worker/nn/lora.h): forward
// for serving and training, and backward. A layer is dense, or grouped: rows
// sorted by group, each group with weights of its own (experts).
//
//   forward   y = x W^T + drop(x) A^T (sB)^T
//   backward  dx = dy W + drop'(du A), du = dy (sB)
//             dW = dy^T x ; dA = du^T drop(x) ; dB = s dy^T u, u = drop(x) A^T
//
// x, dy, u and du have the compute dtype. Without an adapter a forward is one
// product, as if this file were not there. With one it is one pass over y where
// the backend fuses it (kernels/fused_products.h), else a sum of two products.
#ifndef OCTET_WORKER_NN_LINEAR_H_
#define OCTET_WORKER_NN_LINEAR_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/fused_products.h"
#include "kernels/training_backend.h"
#include "worker/nn/gradient_sink.h"
#include "worker/nn/lora.h"
#include "worker/nn/scratch.h"

namespace octet {

// Views of the weights.
struct LinearWeights {
  const PackedMatrix* w = nullptr;    // [n, k]
  const LoraWeights* lora = nullptr;  // nullptr: not adapted
};
// One entry per group in both; all groups are adapted or none is.
struct GroupedLinearWeights {
  std::vector<const PackedMatrix*> w;
  std::vector<const LoraWeights*> lora;

  bool adapted() const { return !lora.empty() && lora[0] != nullptr; }
  // Columns of u; 0: not adapted.
  int64_t rank() const { return adapted() ? lora[0]->a->n() : 0; }
};

// The seed of the dropout masks of one weight's adapter.
uint64_t DropoutSeed(uint64_t run_seed, const WeightId& id);

// Where a training pass is: which adapters drop, and with which masks. Without
// row_keys none does.
struct DropoutRows {
  ConstTensor row_keys;   // [T] i64: SlotMap::RowKey of each row of x
  uint64_t run_seed = 0;  // of DropoutSeed

  bool on() const { return row_keys.data() != nullptr; }
  // Those of rows [begin, begin + count).
  DropoutRows Rows(int64_t begin, int64_t count) const {
    return on() ? DropoutRows{row_keys.Rows(begin, count), run_seed} : *this;
  }
};

// Threads: one at a time. The backend outlives it; one object serves all
// layers of a kind or of several.
class Linear {
 public:
  explicit Linear(Backend* backend);

  // ---- forward
  // out = x W^T + ..., or added to. x [T, k] compute dtype; out [T, n] f32.
  absl::Status Forward(const LinearWeights& weights, ConstTensor x,
                       bool accumulate, Tensor out, Stream& stream);
  // The same in groups. out [T, n] f32 or compute dtype. Adapters need a
  // backend that can train.
  absl::Status Forward(const GroupedLinearWeights& weights, ConstTensor x,
                       absl::Span<const int64_t> row_offsets, Tensor out,
                       Stream& stream);

  // With dropout on x in front of A. `id` names W (kBase).
  absl::Status ForwardTraining(const LinearWeights& weights, const WeightId& id,
                               ConstTensor x, const DropoutRows& dropout,
                               bool accumulate, Tensor out, Stream& stream);
  // ids: of each group. kept_u [T, rank] compute dtype, for Backward; or
  // without data.
  absl::Status ForwardTraining(const GroupedLinearWeights& weights,
                               absl::Span<const WeightId> ids, ConstTensor x,
                               absl::Span<const int64_t> row_offsets,
                               const DropoutRows& dropout, Tensor kept_u,
                               Tensor out, Stream& stream);

  // out = silu(h[:, :F]) h[:, F:] of h = the layer's output, from h in f32. out
  // [T, F] compute dtype; hidden [T, 2F] compute dtype gets h; or without data.
  absl::Status ForwardSwiGlu(const GroupedLinearWeights& w13,
                             absl::Span<const WeightId> ids, ConstTensor x,
                             absl::Span<const int64_t> row_offsets,
                             const DropoutRows& dropout, Tensor kept_u,
                             Tensor hidden, Tensor out, Stream& stream);

  // ---- backward
  // x as in the forward pass; dy [T, n] compute dtype; slots: whose rows they
  // are. dx [T, k] f32, written or added to. Gradients that the sink wants of
  // W, A and B go there.
  absl::Status Backward(const LinearWeights& weights, const WeightId& id,
                        ConstTensor x, ConstTensor dy,
                        const DropoutRows& dropout,
                        absl::Span<const SlotRows> slots, GradientSink& sink,
                        bool accumulate, Tensor dx, Stream& stream);
  // slots: of each group, rows counted over all groups. kept_u: as the forward
  // pass left it, or without data: computed again. dx [T, k] f32 or compute
  // dtype, written.
  absl::Status Backward(const GroupedLinearWeights& weights,
                        absl::Span<const WeightId> ids, ConstTensor x,
                        ConstTensor kept_u, ConstTensor dy,
                        absl::Span<const int64_t> row_offsets,
                        const DropoutRows& dropout,
                        absl::Span<const std::vector<SlotRows>> slots,
                        GradientSink& sink, Tensor dx, Stream& stream);

  // The same for a layer that reads SwiGLU's output, and on through SwiGLU:
  // hidden [T, 2F] compute dtype, its input, becomes the gradient. SwiGLU's
  // output is computed again, into x [T, F] compute dtype.
  absl::Status BackwardSwiGlu(
      const GroupedLinearWeights& w2, absl::Span<const WeightId> ids, Tensor x,
      ConstTensor kept_u, ConstTensor dy, absl::Span<const int64_t> row_offsets,
      const DropoutRows& dropout, absl::Span<const std::vector<SlotRows>> slots,
      GradientSink& sink, Tensor hidden, Stream& stream);

  // Device memory held.
  int64_t size_bytes() const;
  // What an adapter of rank r on a layer [n, k] makes of it for T rows: forward
  // only, or with backward; without kept_u. fused: the backend fuses adapters.
  static int64_t AdapterBytes(DType dtype, int64_t num_rows, int64_t n,
                              int64_t k, int64_t rank, bool grouped, bool fused,
                              bool dropout, bool backward);
  // What ForwardSwiGlu of up to chunk_rows and BackwardSwiGlu of T rows make of
  // it.
  static int64_t SwiGluBytes(int64_t num_rows, int64_t chunk_rows, int64_t ffn,
                             bool fused, bool dropout);

 private:
  using Matrices = absl::Span<const PackedMatrix* const>;
  using Slots = absl::Span<const absl::Span<const SlotRows>>;
  // A layer's weights and the groups of its rows; a dense layer is one group.
  struct Groups {
    bool grouped = false;
    Matrices w;
    absl::Span<const LoraWeights* const> lora;  // empty: not adapted
    absl::Span<const WeightId> ids;
    absl::Span<const int64_t> row_offsets;
  };

  // Where a layer's output, or the gradient of its input, goes; the latter, if
  // `hidden` has data, through SwiGLU's gradient to there, and `out` gets
  // SwiGLU's output.
  struct Target {
    Tensor out;
    bool accumulate = false;
    Tensor hidden = {};

    bool through_swiglu() const { return hidden.data() != nullptr; }
  };
  // The matrices of a layer's adapters, one of each for a group.
  struct AdapterMatrices {
    explicit AdapterMatrices(absl::Span<const LoraWeights* const> lora);

    std::vector<const PackedMatrix*> a, b;
  };
  // Views of the arguments, which outlive the result.
  static Groups Dense(const LinearWeights& weights, const WeightId& id,
                      absl::Span<const int64_t> row_offsets);
  static Groups Grouped(const GroupedLinearWeights& weights,
                        absl::Span<const WeightId> ids,
                        absl::Span<const int64_t> row_offsets);

  // ---- linear.cc
  FusedProducts* fused() const;
  // x W^T of each group, without adapters.
  absl::Status Multiply(const Groups& groups, Matrices w, ConstTensor x,
                        bool accumulate, Tensor out, Stream& stream);
  absl::Status Run(const Groups& groups, ConstTensor x,
                   const DropoutRows& dropout, Tensor kept_u,
                   const Target& target, Stream& stream);
  absl::Status ComposedRun(const Groups& groups, ConstTensor x,
                           const DropoutRows& dropout, Tensor kept_u,
                           const Target& target, Stream& stream);
  // Does this call drop?
  static bool Drops(const Groups& groups, const DropoutRows& dropout);
  absl::Status Drop(const Groups& groups, ConstTensor x,
                    const DropoutRows& dropout, bool accumulate, Tensor out,
                    Stream& stream);
  // drop(x), which is x when nothing drops.
  absl::StatusOr<ConstTensor> Dropped(const Groups& groups, ConstTensor x,
                                      const DropoutRows& dropout,
                                      Stream& stream);
  // kept_u, or memory for it.
  absl::StatusOr<Tensor> MemoryOfU(const Groups& groups, ConstTensor x,
                                   Tensor kept_u, Stream& stream);
  // What a fused forward pass takes: u is computed here where it is not from x
  // itself.
  absl::StatusOr<LowRank> ReadyAdapter(const Groups& groups,
                                       const AdapterMatrices& matrices,
                                       ConstTensor x,
                                       const DropoutRows& dropout,
                                       Tensor kept_u, Stream& stream);

  // ---- linear_backward.cc
  // What a backward pass reads.
  struct Gradient {
    ConstTensor x;
    ConstTensor kept_u;  // may be without data
    ConstTensor dy;
    const DropoutRows& dropout;
    Slots slots;
  };
  absl::Status MultiplyBack(const Groups& groups, Matrices w, ConstTensor dy,
                            bool accumulate, Tensor dx, Stream& stream);
  absl::Status RunBackward(const Groups& groups, const Gradient& gradient,
                           GradientSink& sink, const Target& dx,
                           Stream& stream);
  absl::Status ComposedBackward(const Groups& groups, const Gradient& gradient,
                                const AdapterMatrices& matrices, Tensor du,
                                const Target& dx, Stream& stream);
  absl::Status AdapterGradients(const Groups& groups, const Gradient& gradient,
                                const AdapterMatrices& matrices, ConstTensor du,
                                GradientSink& sink, Stream& stream);

  Backend* backend_;
  Scratch dropped_;  // [T, k] compute dtype
  Scratch u_;        // [T, r] compute dtype
  Scratch du_;       // [T, r] compute dtype
  Scratch wide_;     // [T, n] or [T, k] f32, before it is rounded
  Scratch masked_;   // [T, k] f32, before it is dropped
  Scratch hidden_;   // [T, 2F] or [T, F] f32, around SwiGLU when not fused
};

}  // namespace octet

#endif  // OCTET_WORKER_NN_LINEAR_H_
