// TrainingBackend::SwiGlu and SwiGluBackward on the CPU.
#ifndef OCTET_KERNELS_CPU_SWIGLU_H_
#define OCTET_KERNELS_CPU_SWIGLU_H_

#include "kernels/cpu/context.h"
#include "kernels/tensor.h"

namespace octet::cpu {

void SwiGlu(CpuContext& context, ConstTensor h, Tensor out);
void SwiGluBackward(CpuContext& context, ConstTensor h, ConstTensor dout,
                    Tensor dh);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_SWIGLU_H_
