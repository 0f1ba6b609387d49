// A low-rank change of one linear layer (Hu et al., 2021):
//   y = x W^T + (dropout(x) A^T) (s B)^T,  s = alpha / rank.
//
// Several adapted modules may share one fused W (q, k and v; w1 and w3): A then
// stacks their A's, and B is block diagonal, each module's B in its own rows
// and its own columns. Modules that read the same x share its dropout mask.
#ifndef OCTET_WORKER_NN_LORA_H_
#define OCTET_WORKER_NN_LORA_H_

#include <cstdint>
#include <memory>

#include "kernels/backend.h"

namespace octet {

struct LoraWeights {
  std::unique_ptr<PackedMatrix> a;  // [r, k], r summed over the modules
  std::unique_ptr<PackedMatrix> b;  // [n, r], holds s B
  float scale = 1;                  // s
  float dropout = 0;                // p, in training only

  int64_t num_bytes() const {
    return static_cast<int64_t>(a->size_bytes() + b->size_bytes());
  }
};

}  // namespace octet

#endif  // OCTET_WORKER_NN_LORA_H_
