// TrainingBackend::CrossEntropy on the CPU.
#ifndef OCTET_KERNELS_CPU_CROSS_ENTROPY_H_
#define OCTET_KERNELS_CPU_CROSS_ENTROPY_H_

#include "absl/status/status.h"
#include "kernels/cpu/context.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// Exponentials are summed in f32 in blocks of some hundred, then in double.
// INVALID_ARGUMENT names a target outside
// [-1, V); nothing is written then.
absl::Status CrossEntropy(CpuContext& context, ConstTensor logits,
                          ConstTensor targets, ConstTensor scales,
                          Tensor losses, Tensor dlogits);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_CROSS_ENTROPY_H_
