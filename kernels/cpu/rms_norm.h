// Backend::RmsNorm on the CPU.
#ifndef OCTET_KERNELS_CPU_RMS_NORM_H_
#define OCTET_KERNELS_CPU_RMS_NORM_H_

#include "kernels/cpu/context.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// The mean is summed in f32, in as many interleaved sums as the vectors have
// lanes, times four.
void RmsNorm(CpuContext& context, ConstTensor x, ConstTensor weight, float eps,
             Tensor out);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_RMS_NORM_H_
