// TrainingBackend::SumOfSquares and AdamW on the CPU.
#ifndef OCTET_KERNELS_CPU_OPTIMIZER_H_
#define OCTET_KERNELS_CPU_OPTIMIZER_H_

#include <vector>

#include "kernels/cpu/context.h"
#include "kernels/tensor.h"
#include "kernels/training_backend.h"

namespace octet::cpu {

void SumOfSquares(CpuContext& context, ConstTensor x,
                  std::vector<double>* sums);
void AdamW(CpuContext& context, const AdamWParams& params, ConstTensor grad,
           Tensor weight, Tensor m, Tensor v);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_OPTIMIZER_H_
