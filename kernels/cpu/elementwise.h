// TrainingBackend::Cast, AddScaled, CopyBlock, ScaleRows and Dropout on the
// CPU.
#ifndef OCTET_KERNELS_CPU_ELEMENTWISE_H_
#define OCTET_KERNELS_CPU_ELEMENTWISE_H_

#include <cstdint>

#include "kernels/cpu/context.h"
#include "kernels/tensor.h"
#include "kernels/training_backend.h"

namespace octet::cpu {

void Cast(CpuContext& context, ConstTensor x, Tensor out);
void AddScaled(CpuContext& context, ConstTensor x, float scale, Tensor out);
void CopyBlock(CpuContext& context, ConstTensor src, MatrixBlock src_at,
               Tensor dst, MatrixBlock dst_at, int64_t num_rows,
               int64_t num_cols, bool accumulate);
void ScaleRows(CpuContext& context, ConstTensor x, ConstTensor scales,
               Tensor out);
void Dropout(CpuContext& context, ConstTensor x, ConstTensor row_keys,
             uint64_t seed, float p, bool accumulate, Tensor out);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_ELEMENTWISE_H_
