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
// With more than one chunk (MoeShape::max_chunks) dispatch and combine run on a
// stream of their own: while the experts work on chunk c, chunk c + 1 arrives
// and chunk c - 1 goes home.
//
//   transfers   D0 | D1      | C0 D2        | C1 ...
//   compute          experts 0 | experts 1 | sum 0 | experts 2 ...
//
// One object serves all layers of a model. Every rank calls Forward for every
// layer, with zero tokens too. Threads: one at a time. Backend, communicator
// and placement outlive it.
#ifndef OCTET_WORKER_MOE_MOE_LAYER_H_
#define OCTET_WORKER_MOE_MOE_LAYER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "worker/comm/communicator.h"
#include "worker/moe/dispatcher.h"
#include "worker/moe/experts.h"
#include "worker/moe/placement.h"
#include "worker/nn/linear.h"
#include "worker/nn/scratch.h"

namespace octet {

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

  // [T, K] choices of this rank's tokens in the last Forward, host.
  absl::Span<const int32_t> choices() const {
    return lanes_[0].dispatcher.own_choices();
  }
  // [L, E] rows this rank computed for each expert since construction.
  absl::Span<const int64_t> expert_rows() const { return expert_row_counts_; }
  // Device memory held.
  int64_t size_bytes() const;

 private:
  // What a chunk needs while the next one is under way already; chunks take
  // turns on two of them.
  struct Lane {
    Lane(Backend* backend, Communicator* communicator,
         const Placement* placement)
        : dispatcher(backend, communicator, placement), expert_out(backend) {}
    Dispatcher dispatcher;
    Scratch expert_out;
    // Made when a step first has two chunks.
    std::unique_ptr<Event> computed;  // the experts' work on the chunk
    std::unique_ptr<Event> moved;     // its last transfer
  };
  // The step's chunks: transfers go on one stream, the rest on step.stream;
  // the two are the same when there is one chunk.
  struct Pass;

  absl::Status SetUpStreams();
  // Later work of `on` comes after what was there when the event was marked.
  // Nothing to do with one stream.
  absl::Status Mark(const Pass& pass, const std::unique_ptr<Event>& event,
                    const StepContext& on);
  absl::Status Await(const Pass& pass, const std::unique_ptr<Event>& event,
                     const StepContext& on);
  absl::Status Route(ConstTensor x, Pass& pass);
  absl::Status RunChunk(Pass& pass, int chunk);
  absl::Status CombineChunk(Pass& pass, int chunk);
  int NumChunks(absl::Span<const int64_t> rank_tokens) const;
  void CountRows(const DispatchHandle& handle, int layer);

  Backend* backend_;
  const Placement* placement_;
  const int rank_;
  const MoeShape shape_;
  std::vector<Lane> lanes_;
  Linear gate_;
  Experts experts_;
  Scratch logits_, topk_ids_, topk_weights_;
  std::unique_ptr<Stream> transfers_;  // made when a step first has two chunks
  std::vector<int64_t> expert_row_counts_;
};

}  // namespace octet

#endif  // OCTET_WORKER_MOE_MOE_LAYER_H_
