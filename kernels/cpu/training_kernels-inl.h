// Every loop of training that is compiled once per instruction set, as a table.
#ifndef OCTET_KERNELS_CPU_TRAINING_KERNELS_INL_H_
#define OCTET_KERNELS_CPU_TRAINING_KERNELS_INL_H_

#include "kernels/cpu/attention_backward-inl.h"
#include "kernels/cpu/pack_panel-inl.h"
#include "kernels/cpu/training_kernels.h"
#include "kernels/cpu/training_rows-inl.h"

namespace octet::cpu {
namespace {

constexpr TrainingKernels MakeTrainingKernels() {
  return {.swiglu = SwiGluRow,
          .swiglu_backward = SwiGluBackwardRow,
          .inverse_rms = InverseRms,
          .rms_norm_backward = RmsNormBackwardRow,
          .add_products = AddProducts,
          .dot = DotRow,
          .add_scaled = AddScaledRow,
          .scale = ScaleRow,
          .sum_exp = SumExpBlocks,
          .softmax = SoftmaxRow,
          .dropout = DropoutOfRow,
          .sum_squares = SumSquares,
          .adamw = AdamWRow,
          .pack_panel_f32 = PackPanelF32,
          .pack_panel_bf16 = PackPanelBF16,
          .attention_backward = AttentionBackward};
}

}  // namespace
}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_TRAINING_KERNELS_INL_H_
