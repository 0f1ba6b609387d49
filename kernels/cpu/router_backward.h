// TrainingBackend::RouterBackward, RouterProbabilities and RouterLossBackward
// on the CPU.
#ifndef OCTET_KERNELS_CPU_ROUTER_BACKWARD_H_
#define OCTET_KERNELS_CPU_ROUTER_BACKWARD_H_

#include "absl/status/status.h"
#include "kernels/cpu/context.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// INVALID_ARGUMENT names an id outside [0, E); nothing is written then.
absl::Status RouterBackward(CpuContext& context, ConstTensor topk_ids,
                            ConstTensor topk_weights, ConstTensor dweights,
                            Tensor dlogits);
void RouterProbabilities(CpuContext& context, ConstTensor logits,
                         Tensor probabilities, Tensor log_sums);
void RouterLossBackward(CpuContext& context, ConstTensor logits,
                        ConstTensor coef, float z_coef, Tensor dlogits);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_ROUTER_BACKWARD_H_
