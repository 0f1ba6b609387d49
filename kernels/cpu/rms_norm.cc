#include "kernels/cpu/rms_norm.h"

namespace octet::cpu {

void RmsNorm(CpuContext& context, ConstTensor x, ConstTensor weight, float eps,
             Tensor out) {
  const int64_t hidden = x.dim(1);
  const float* from = x.as<float>();
  const float* scale = weight.as<float>();
  context.ForRows(
      x.dim(0), hidden * sizeof(float), [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          const int64_t at = t * hidden;
          if (out.dtype() == DType::kF32) {
            context.kernels().rms_norm_f32(from + at, scale, eps, hidden,
                                           out.as<float>() + at);
          } else {
            context.kernels().rms_norm_bf16(from + at, scale, eps, hidden,
                                            out.as<uint16_t>() + at);
          }
        }
      });
}

}  // namespace octet::cpu
