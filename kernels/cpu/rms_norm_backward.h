// TrainingBackend::RmsNormBackward and RmsNormBackwardWeight on the CPU.
#ifndef OCTET_KERNELS_CPU_RMS_NORM_BACKWARD_H_
#define OCTET_KERNELS_CPU_RMS_NORM_BACKWARD_H_

#include "kernels/cpu/context.h"
#include "kernels/tensor.h"

namespace octet::cpu {

void RmsNormBackward(CpuContext& context, ConstTensor x, ConstTensor weight,
                     float eps, ConstTensor dy, Tensor dx);
// Rows are summed in rising order.
void RmsNormBackwardWeight(CpuContext& context, ConstTensor x, float eps,
                           ConstTensor dy, bool accumulate, Tensor dweight);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_RMS_NORM_BACKWARD_H_
