// Backend::Router on the CPU.
#ifndef OCTET_KERNELS_CPU_ROUTER_H_
#define OCTET_KERNELS_CPU_ROUTER_H_

#include "kernels/cpu/context.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// The K ids of a row are always distinct and in [0, E), NaN logits or not; a
// NaN that is chosen makes the row's weights NaN.
void Router(CpuContext& context, ConstTensor logits, Tensor topk_ids,
            Tensor topk_weights);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_ROUTER_H_
