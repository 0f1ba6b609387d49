// The experts of one rank: the feed-forward networks of a layer over the rows
// that came in for them.
#ifndef OCTET_WORKER_MOE_EXPERTS_H_
#define OCTET_WORKER_MOE_EXPERTS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "worker/moe/dispatcher.h"
#include "worker/nn/linear.h"
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
  // A layer's tokens are cut into this many chunks at most, so that one chunk
  // travels while the experts work on another; 1: off, which is right for
  // backends that work inside their calls. Changes no bits.
  int max_chunks = 1;
  // Tokens of the fullest rank in a chunk at least: each chunk reads the
  // experts' weights again.
  int64_t min_chunk_tokens = 256;
};

// Views of one layer's weights. w13 and w2 have one entry per local expert, in
// the order of Placement::LocalExperts.
struct MoeWeights {
  LinearWeights gate;        // [E, H]
  GroupedLinearWeights w13;  // [2F, H] each
  GroupedLinearWeights w2;   // [H, F] each
};

// Where the groups of rows begin (E_l + 1 entries) among rows [begin, begin +
// count), counted from `begin`.
std::vector<int64_t> OffsetsWithin(absl::Span<const int64_t> offsets,
                                   int64_t begin, int64_t count);

// Threads: one at a time. The backend outlives it.
class Experts {
 public:
  Experts(Backend* backend, const MoeShape& shape)
      : shape_(shape), linear_(backend), in_(backend), mid_(backend) {}

  // out [expert rows, H] = (silu(rows W1^T) * (rows W3^T)) W2^T, where the rows
  // are those of `received` in the handle's expert order.
  absl::Status Run(const MoeWeights& weights, const DispatchHandle& handle,
                   Dispatcher& dispatcher, ConstTensor received, Tensor out,
                   const StepContext& step);

  // Device memory held.
  int64_t size_bytes() const {
    return linear_.size_bytes() +
           static_cast<int64_t>(in_.size_bytes() + mid_.size_bytes());
  }

 private:
  const MoeShape shape_;
  Linear linear_;
  Scratch in_;   // [rows, H] compute dtype
  Scratch mid_;  // [rows, F] compute dtype
};

}  // namespace octet

#endif  // OCTET_WORKER_MOE_EXPERTS_H_
