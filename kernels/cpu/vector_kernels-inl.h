// Everything that is compiled once per instruction set, as a table.
#ifndef OCTET_KERNELS_CPU_VECTOR_KERNELS_INL_H_
#define OCTET_KERNELS_CPU_VECTOR_KERNELS_INL_H_

#include "kernels/cpu/attention-inl.h"
#include "kernels/cpu/row_kernels-inl.h"
#include "kernels/cpu/vector_kernels.h"

namespace octet::cpu {
namespace {

constexpr VectorKernels MakeVectorKernels() {
  return {.rms_norm_f32 = RmsNormRow<float>,
          .rms_norm_bf16 = RmsNormRow<uint16_t>,
          .rotate_f32 = RotateHead<float>,
          .rotate_bf16 = RotateHead<uint16_t>,
          .to_bf16 = ConvertRow<float, uint16_t>,
          .from_bf16 = ConvertRow<uint16_t, float>,
          .combine_f32 = CombineRow<float>,
          .combine_bf16 = CombineRow<uint16_t>,
          .exp = ExpRow,
          .max = MaxOfRow,
          .sum_exp = SumExpRow,
          .exp_scaled = ExpScaledRow,
          .attention = Attention};
}

}  // namespace
}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_VECTOR_KERNELS_INL_H_
