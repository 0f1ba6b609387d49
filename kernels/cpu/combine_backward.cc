#include "kernels/cpu/combine_backward.h"

#include <vector>

#include "base/status_macros.h"
#include "kernels/cpu/float_rows.h"

namespace octet::cpu {

absl::Status SlotDots(CpuContext& context, ConstTensor x, ConstTensor rows,
                      ConstTensor slot_rows, Tensor dots) {
  OCTET_RETURN_IF_ERROR(
      CheckIndices("SlotDots", "slot_rows", slot_rows, rows.dim(0)));
  const VectorKernels& kernels = context.kernels();
  const int64_t hidden = x.dim(1);
  const int64_t top_k = dots.dim(1);
  context.ForRows(x.dim(0), (top_k + 1) * hidden * sizeof(float),
                  [&](int64_t begin, int64_t end) {
                    std::vector<float> wide(hidden);
                    for (int64_t t = begin; t < end; ++t) {
                      const float* a = x.as<float>() + t * hidden;
                      for (int64_t k = 0; k < top_k; ++k) {
                        const int64_t row =
                            slot_rows.as<int32_t>()[t * top_k + k];
                        const float* b = ReadFloats(kernels, rows, row * hidden,
                                                    hidden, wide.data());
                        float sum = 0.0f;
                        for (int64_t i = 0; i < hidden; ++i) sum += a[i] * b[i];
                        dots.as<float>()[t * top_k + k] = sum;
                      }
                    }
                  });
  return absl::OkStatus();
}

}  // namespace octet::cpu
