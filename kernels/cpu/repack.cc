#include "kernels/cpu/repack.h"

#include <algorithm>

#include "base/logging.h"
#include "base/status_macros.h"
#include "kernels/weight_rows.h"

namespace octet::cpu {
namespace {

// Rows of a full panel are turned by vectors, others one by one.
void RepackPanel(CpuContext& context, CpuPackedMatrix& matrix, int64_t row,
                 ConstTensor rows) {
  const TrainingKernels& kernels = context.training_kernels();
  std::byte* panel = matrix.mutable_panel(row / kPanelOutputs);
  const float* from = rows.as<float>();
  if (rows.dim(0) != kPanelOutputs) {
    OCTET_CHECK(matrix.PackRows(row, rows).ok());
  } else if (matrix.dtype() == DType::kF32) {
    kernels.pack_panel_f32(from, matrix.k(), reinterpret_cast<float*>(panel));
  } else {
    kernels.pack_panel_bf16(from, matrix.k(),
                            reinterpret_cast<uint16_t*>(panel));
  }
}

}  // namespace

absl::Status Repack(CpuContext& context, CpuPackedMatrix& matrix,
                    int64_t row_begin, ConstTensor rows) {
  OCTET_RETURN_IF_ERROR(CheckRowsToPack(matrix, row_begin, rows));
  const int64_t row_end = row_begin + rows.dim(0);
  const int64_t first = row_begin / kPanelOutputs;
  const int64_t last = NumPanels(row_end);
  context.ForRows(
      last - first, kPanelOutputs * matrix.k() * 2 * sizeof(float),
      [&](int64_t begin, int64_t end) {
        for (int64_t panel = first + begin; panel < first + end; ++panel) {
          const int64_t from = std::max(row_begin, panel * kPanelOutputs);
          const int64_t to = std::min(row_end, (panel + 1) * kPanelOutputs);
          RepackPanel(context, matrix, from,
                      rows.Rows(from - row_begin, to - from));
        }
      });
  return absl::OkStatus();
}

}  // namespace octet::cpu
