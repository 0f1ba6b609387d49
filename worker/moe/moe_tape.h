// What a layer's forward pass in training keeps for its backward pass.
#ifndef OCTET_WORKER_MOE_MOE_TAPE_H_
#define OCTET_WORKER_MOE_MOE_TAPE_H_

#include <cstdint>
#include <vector>

#include "kernels/backend.h"
#include "worker/moe/dispatch_plan.h"
#include "worker/moe/experts.h"
#include "worker/nn/scratch.h"

namespace octet {

// N expert rows. Tensors are views of the memories below; the next forward pass
// with the same tape uses them again. Owned by whoever runs the layers.
struct MoeTape {
  explicit MoeTape(Backend* backend);

  DispatchHandle handle;
  std::vector<int32_t> choices;  // [T, K]
  Tensor logits;                 // [T, E] f32
  Tensor topk_ids;               // [T, K] i32
  Tensor topk_weights;           // [T, K] f32
  Tensor in;                     // [N, H] compute dtype
  Tensor hidden;    // [N, 2F] compute dtype; Backward overwrites it
  Tensor u13, u2;   // [N, r] compute dtype, of adapters on W13 and W2
  ConstTensor out;  // [T K, H] compute dtype, from the experts

  Scratch logits_memory, ids_memory, weights_memory;
  Scratch in_memory, hidden_memory, u13_memory, u2_memory;
  Scratch out_memory;

  int64_t size_bytes() const;
  // The device memory of T tokens and N expert rows, without adapters.
  static int64_t Bytes(const MoeShape& shape, int64_t num_tokens,
                       int64_t num_expert_rows);
};

}  // namespace octet

#endif  // OCTET_WORKER_MOE_MOE_TAPE_H_
