// TrainingBackend::SlotDots on the CPU: the gradient of CombineRows' weights.
#ifndef OCTET_KERNELS_CPU_COMBINE_BACKWARD_H_
#define OCTET_KERNELS_CPU_COMBINE_BACKWARD_H_

#include "absl/status/status.h"
#include "kernels/cpu/context.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// INVALID_ARGUMENT names an index outside the rows; nothing is written then.
absl::Status SlotDots(CpuContext& context, ConstTensor x, ConstTensor rows,
                      ConstTensor slot_rows, Tensor dots);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_COMBINE_BACKWARD_H_
