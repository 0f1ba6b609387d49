#include "kernels/cpu/combine_backward.h"

#include "base/status_macros.h"
#include "kernels/cpu/elements.h"

namespace octet::cpu {

absl::Status SlotDots(CpuContext& context, ConstTensor x, ConstTensor rows,
                      ConstTensor slot_rows, Tensor dots) {
  OCTET_RETURN_IF_ERROR(
      CheckIndices("SlotDots", "slot_rows", slot_rows, rows.dim(0)));
  const int64_t hidden = x.dim(1);
  const int64_t top_k = dots.dim(1);
  context.ForRows(x.dim(0), (top_k + 1) * hidden * sizeof(float),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t slot = begin * top_k; slot < end * top_k;
                         ++slot) {
                      const int64_t row = slot_rows.as<int32_t>()[slot];
                      dots.as<float>()[slot] = context.training_kernels().dot(
                          x.as<float>() + slot / top_k * hidden,
                          ElementsAt(rows, row * hidden), hidden);
                    }
                  });
  return absl::OkStatus();
}

}  // namespace octet::cpu
