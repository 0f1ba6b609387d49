// The mixture-of-experts half of a transformer layer, for one rank of a group:
//
//   logits = x Wg^T ; choices, weights = top-k                       "router"
//   rows to the experts' ranks                                       "dispatch"
//   out = (silu(rows W1^T) * (rows W3^T)) W2^T, per expert           "expert"
//   rows back; residual += sum over slots of weight * out            "combine"
//
// The expert outputs are rounded to the compute dtype on the expert's rank,
// also when the token lives there; the K products are summed at the token's
// home in slot order in f32. So the bits do not depend on who computes what.
//
// One object serves all layers of a model. Every rank calls Forward for every
// layer, with zero tokens too. Threads: one at a time. Backend, communicator
// and placement outlive it.
#ifndef OCTET_WORKER_MOE_MOE_LAYER_H_
#define OCTET_WORKER_MOE_MOE_LAYER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "worker/comm/communicator.h"
#include "worker/moe/dispatcher.h"
#include "worker/moe/placement.h"
#include "worker/nn/scratch.h"

namespace octet {

struct MoeShape {
  int num_layers = 0;
  int num_experts = 0;     // E
  int top_k = 0;           // K
  int64_t hidden_dim = 0;  // H
  int64_t ffn_dim = 0;     // F
  DType dtype = DType::kBF16;
  // Expert rows that go through the FFN at a time, which bounds its
  // intermediate memory to this many rows of 2 H + F. Large enough that reading
  // the weights again costs little beside the products.
  int64_t max_expert_rows = 2048;
};

// Views of one layer's weights. w13 and w2 have one entry per local expert, in
// the order of Placement::LocalExperts.
struct MoeWeights {
  const PackedMatrix* gate = nullptr;    // [E, H]
  std::vector<const PackedMatrix*> w13;  // [2F, H] each
  std::vector<const PackedMatrix*> w2;   // [H, F] each
};

// Seconds by phase, summed over layers, on the host's clock. A backend that
// runs behind the calls shows its time in the phase that waits for it.
struct MoeSeconds {
  double router = 0;
  double dispatch = 0;
  double expert = 0;
  double combine = 0;
};

class MoeLayer {
 public:
  MoeLayer(Backend* backend, Communicator* communicator,
           const Placement* placement, const MoeShape& shape);

  // x [T, H] compute dtype; residual [T, H] f32, added to. rank_tokens [R] as
  // in Dispatcher::Route. Adds to *seconds.
  absl::Status Forward(const MoeWeights& weights, ConstTensor x,
                       absl::Span<const int64_t> rank_tokens, Tensor residual,
                       const StepContext& step, MoeSeconds* seconds);

  // [L, E] rows this rank computed for each expert since construction.
  absl::Span<const int64_t> expert_rows() const { return expert_row_counts_; }
  // Device memory held.
  int64_t size_bytes() const;

 private:
  // The local experts over all rows that came in; the result [rows, H] is valid
  // until the next call.
  absl::StatusOr<Tensor> RunExperts(const MoeWeights& weights,
                                    const DispatchHandle& handle,
                                    ConstTensor received,
                                    const StepContext& step);
  void CountRows(const DispatchHandle& handle, int layer);

  Backend* backend_;
  const Placement* placement_;
  const int rank_;
  const MoeShape shape_;
  Dispatcher dispatcher_;
  Scratch logits_, topk_ids_, topk_weights_;
  Scratch expert_in_, expert_mid_, expert_out_;
  std::vector<int64_t> expert_row_counts_;
};

}  // namespace octet

#endif  // OCTET_WORKER_MOE_MOE_LAYER_H_
