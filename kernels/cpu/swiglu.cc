#include "kernels/cpu/swiglu.h"

#include <vector>

#include "kernels/cpu/float_rows.h"

namespace octet::cpu {

void SwiGlu(CpuContext& context, ConstTensor h, Tensor out) {
  const VectorKernels& kernels = context.kernels();
  const int64_t ffn = out.dim(1);
  context.ForRows(
      h.dim(0), 3 * ffn * sizeof(float), [&](int64_t begin, int64_t end) {
        std::vector<float> wide(2 * ffn);
        std::vector<float> y(ffn);
        for (int64_t t = begin; t < end; ++t) {
          const float* a =
              ReadFloats(kernels, h, t * 2 * ffn, 2 * ffn, wide.data());
          const float* b = a + ffn;
          for (int64_t i = 0; i < ffn; ++i) y[i] = -a[i];
          kernels.exp(y.data(), ffn);
          for (int64_t i = 0; i < ffn; ++i) y[i] = a[i] / (1.0f + y[i]) * b[i];
          WriteFloats(kernels, y.data(), ffn, out, t * ffn);
        }
      });
}

void SwiGluBackward(CpuContext& context, ConstTensor h, ConstTensor dout,
                    Tensor dh) {
  const VectorKernels& kernels = context.kernels();
  const int64_t ffn = dout.dim(1);
  context.ForRows(
      h.dim(0), 5 * ffn * sizeof(float), [&](int64_t begin, int64_t end) {
        std::vector<float> wide(2 * ffn), wide_dout(ffn), s(ffn);
        std::vector<float> d(2 * ffn);
        for (int64_t t = begin; t < end; ++t) {
          const float* a =
              ReadFloats(kernels, h, t * 2 * ffn, 2 * ffn, wide.data());
          const float* b = a + ffn;
          const float* dy =
              ReadFloats(kernels, dout, t * ffn, ffn, wide_dout.data());
          for (int64_t i = 0; i < ffn; ++i) s[i] = -a[i];
          kernels.exp(s.data(), ffn);
          for (int64_t i = 0; i < ffn; ++i) {
            const float gate = 1.0f / (1.0f + s[i]);
            d[i] = dy[i] * b[i] * (gate * (1.0f + a[i] * (1.0f - gate)));
            d[ffn + i] = dy[i] * (a[i] * gate);
          }
          WriteFloats(kernels, d.data(), 2 * ffn, dh, t * 2 * ffn);
        }
      });
}

}  // namespace octet::cpu
