// The mixture-of-experts half of a layer in training: a forward pass that keeps
// what its gradient needs, and the backward pass over the same dispatch handle.
//
//   forward   as worker/moe/moe_layer.h, the same bits
//   backward  dy goes out to the experts like x did       "dispatch"
//             dout = weight dy ; dmid = dout W2
//             dh = SwiGLU'(h, dmid) ; din = dh W13         "expert"
//             din comes back; dx = sum over slots of din   "combine"
//             dweights = dy . out ; dlogits ; dx += dlogits Wg
//
// dy and din travel in the compute dtype, dx is summed in slot order in f32.
// Rows of an expert are sorted by (source rank, token), which is slot order, so
// each (expert, slot) is a range of rows whose content does not depend on who
// computes what.
//
// Every rank makes the same calls, with zero tokens too. Threads: one at a
// time. Backend, communicator and placement outlive it.
#ifndef OCTET_WORKER_MOE_MOE_TRAINING_H_
#define OCTET_WORKER_MOE_MOE_TRAINING_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "worker/comm/communicator.h"
#include "worker/moe/dispatcher.h"
#include "worker/moe/experts.h"
#include "worker/moe/moe_layer.h"
#include "worker/moe/moe_tape.h"
#include "worker/moe/placement.h"
#include "worker/nn/gradient_sink.h"
#include "worker/nn/linear.h"
#include "worker/nn/scratch.h"
#include "worker/nn/slot_map.h"

namespace octet {

// The call's tokens. Everything outlives the passes over it.
struct MoeBatch {
  absl::Span<const int64_t> rank_tokens;  // [R], as in Dispatcher::Route
  const SlotMap* slot_map = nullptr;      // of all ranks' tokens
  absl::Span<const SlotRows> own_slots;   // of this rank's T rows
  bool drop = false;                      // whether adapters drop
  DropoutRows dropout;  // of this rank's T rows; without row_keys when T = 0
};

// Gradient of router losses with respect to a layer's logits: over rows [begin,
// end), of sum_e coefs[i, e] p[e] + z_coef (log sum exp)^2.
struct RouterGradient {
  struct Rows {
    int64_t begin = 0;
    int64_t end = 0;
    float z_coef = 0;
  };
  std::vector<Rows> rows;
  ConstTensor coefs;  // [rows.size(), E] f32, device
};

class MoeTraining {
 public:
  // The backend can train.
  MoeTraining(Backend* backend, Communicator* communicator,
              const Placement* placement, const MoeShape& shape);

  // x [T, H] compute dtype; residual [T, H] f32, added to. routes: none, or the
  // [T, K] experts to use, host; -1: the router's choice. Adds to *seconds.
  absl::Status Forward(const MoeWeights& weights, ConstTensor x,
                       const MoeBatch& batch, absl::Span<const int32_t> routes,
                       Tensor residual, MoeTape& tape, const StepContext& step,
                       MoeSeconds* seconds);

  // x as in Forward; dy [T, H] f32, the gradient of residual; dx [T, H] f32,
  // written: the gradient of x.
  absl::Status Backward(const MoeWeights& weights, ConstTensor x,
                        const MoeBatch& batch, ConstTensor dy,
                        const RouterGradient& router, MoeTape& tape, Tensor dx,
                        GradientSink& sink, const StepContext& step,
                        MoeSeconds* seconds);

  // Device memory held beside tapes, and what N expert rows and T tokens take
  // of it without its linear layers' own.
  int64_t size_bytes() const;
  static int64_t WorkspaceBytes(const MoeShape& shape, int64_t num_tokens,
                                int64_t num_expert_rows);

 private:
  // Where a layer's pass is.
  struct Pass {
    const MoeWeights& weights;
    const MoeBatch& batch;
    MoeTape& tape;
    const StepContext& step;
    std::vector<WeightId> w13_ids, w2_ids;  // of each local expert
    DropoutRows expert_dropout = {};        // of the expert rows
  };
  Pass Begin(const MoeWeights& weights, const MoeBatch& batch, MoeTape& tape,
             const StepContext& step) const;
  absl::Status ReadyDropout(Pass& pass);
  absl::Status Route(Pass& pass, ConstTensor x,
                     absl::Span<const int32_t> routes);
  absl::Status ReadyTape(Pass& pass);
  absl::Status RunExperts(Pass& pass, ConstTensor received, Tensor out);
  absl::Status ExpertsBackward(Pass& pass, ConstTensor dout, Tensor din,
                               GradientSink& sink);
  absl::Status RouterBackward(Pass& pass, ConstTensor x, ConstTensor dy,
                              ConstTensor slot_rows,
                              const RouterGradient& router, Tensor dx,
                              GradientSink& sink);
  // x itself, or rounded into `memory`.
  absl::StatusOr<ConstTensor> InComputeDtype(ConstTensor x, Scratch& memory,
                                             Stream& stream);
  absl::StatusOr<ConstTensor> Ones(int64_t num_tokens, Stream& stream);
  // [E_l] the slots of each local expert's rows.
  std::vector<std::vector<SlotRows>> ExpertSlots(const Pass& pass) const;

  Backend* backend_;
  TrainingBackend* training_;
  const Placement* placement_;
  const int rank_;
  const bool alone_;
  const MoeShape shape_;
  Dispatcher dispatcher_;
  Linear gate_, linear_;
  Scratch masked_logits_;  // [T, E] f32, with replayed routes
  Scratch expert_out_;     // [N, H] compute dtype
  Scratch expert_keys_;    // [N] i64
  Scratch sent_;           // [T, H] compute dtype
  Scratch dout_, din_;     // [N, H] compute dtype
  Scratch mid_;            // [N, F] compute dtype
  Scratch dweights_, dlogits_, dlogits_narrow_;  // [T, K], [T, E], [T, E]
  Scratch ones_;                                 // [T, K] f32
  std::vector<int64_t> host_keys_;
  std::vector<float> host_logits_, host_ones_;
};

}  // namespace octet

#endif  // OCTET_WORKER_MOE_MOE_TRAINING_H_
