// TrainingBackend::RopeBackward on the CPU.
#ifndef OCTET_KERNELS_CPU_ROPE_BACKWARD_H_
#define OCTET_KERNELS_CPU_ROPE_BACKWARD_H_

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cpu/context.h"
#include "kernels/cpu/rope.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// INVALID_ARGUMENT names a negative position; nothing is written then.
absl::Status RopeBackward(CpuContext& context, RopeTable& table, ConstTensor dq,
                          ConstTensor dk, ConstTensor dv, ConstTensor positions,
                          const RopeParams& params, Tensor dqkv);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_ROPE_BACKWARD_H_
