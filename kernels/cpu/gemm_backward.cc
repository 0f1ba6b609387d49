#include "kernels/cpu/gemm_backward.h"

#include <algorithm>

#include "base/status_macros.h"
#include "kernels/cpu/gemm_driver.h"
#include "kernels/cpu/panel_source.h"

namespace octet::cpu {
namespace {

// Columns of dy that are packed at a time: the scratch of a call stays below
// this, whatever T and n are.
constexpr int64_t kMaxPackedBytes = int64_t{32} << 20;
constexpr int64_t kColumnQuantum = 256;  // a chunk of rows of A
// An x of up to so many columns is the operand that is laid out whole, and dy
// the one that passes by: a panel would hold little of x.
constexpr int64_t kThinColumns = 64;

}  // namespace

absl::Status GemmBackwardInput(ConstTensor dy, const PackedMatrix& w,
                               bool accumulate, Tensor dx,
                               GemmWorkspace& workspace) {
  const PackedMatrix* const matrices[] = {&w};
  const int64_t row_offsets[] = {0, dy.dim(0)};
  return GroupedGemmBackwardInput(dy, matrices, row_offsets, accumulate, dx,
                                  workspace);
}

absl::Status GroupedGemmBackwardInput(ConstTensor dy,
                                      absl::Span<const PackedMatrix* const> w,
                                      absl::Span<const int64_t> row_offsets,
                                      bool accumulate, Tensor dx,
                                      GemmWorkspace& workspace) {
  if (w.empty()) return absl::OkStatus();
  const TransposedWeightPanels panels(w, workspace.panels());
  GemmCall call;
  call.a = dy;
  call.panels = &panels;
  call.out = dx;
  call.accumulate = accumulate;
  return RunGemm(call, row_offsets, workspace);
}

absl::Status GemmBackwardWeight(ConstTensor x, ConstTensor dy, float scale,
                                bool accumulate, Tensor dw,
                                GemmWorkspace& workspace) {
  if (x.dim(0) == 0 && accumulate) return absl::OkStatus();
  const int64_t n = dw.dim(0), k = dw.dim(1);
  const bool thin = k <= kThinColumns && k < n;
  const ActivationPanels panels(thin ? dy : x, workspace.panels());
  GemmCall call;
  call.a = thin ? x : dy;
  call.a_transposed = true;
  call.panels = &panels;
  call.scale = scale;
  call.accumulate = accumulate;
  if (thin) {
    call.out = dw;
    call.out_transposed = true;
    const int64_t row_offsets[] = {0, k};
    return RunGemm(call, row_offsets, workspace);
  }
  const int64_t column_bytes = std::max<int64_t>(
      1, panels.num_steps() * workspace.kernels(dy.dtype()).a_step_bytes);
  const int64_t columns =
      std::max(kColumnQuantum, kMaxPackedBytes / column_bytes / kColumnQuantum *
                                   kColumnQuantum);
  for (int64_t begin = 0; begin < n; begin += columns) {
    const int64_t count = std::min(columns, n - begin);
    const int64_t row_offsets[] = {0, count};
    call.a_column = begin;
    call.out = dw.Rows(begin, count);
    OCTET_RETURN_IF_ERROR(RunGemm(call, row_offsets, workspace));
  }
  return absl::OkStatus();
}

}  // namespace octet::cpu
