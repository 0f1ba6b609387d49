#include "kernels/cpu/swiglu.h"

#include "kernels/cpu/elements.h"

namespace octet::cpu {

void SwiGlu(CpuContext& context, ConstTensor h, Tensor out) {
  const int64_t ffn = out.dim(1);
  context.ForRows(
      h.dim(0), 3 * ffn * sizeof(float), [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          context.training_kernels().swiglu(ElementsAt(h, 2 * t * ffn),
                                            ElementsAt(h, (2 * t + 1) * ffn),
                                            ffn, ElementsAt(out, t * ffn));
        }
      });
}

void SwiGluBackward(CpuContext& context, ConstTensor h, ConstTensor dout,
                    Tensor dh) {
  const int64_t ffn = dout.dim(1);
  context.ForRows(
      h.dim(0), 5 * ffn * sizeof(float), [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          const int64_t gate = 2 * t * ffn;
          const int64_t up = gate + ffn;
          context.training_kernels().swiglu_backward(
              ElementsAt(h, gate), ElementsAt(h, up), ElementsAt(dout, t * ffn),
              ffn, ElementsAt(dh, gate), ElementsAt(dh, up), {});
        }
      });
}

}  // namespace octet::cpu
