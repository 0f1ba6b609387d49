#include "kernels/cpu/gemm.h"

#include "kernels/cpu/gemm_driver.h"
#include "kernels/cpu/panel_source.h"

namespace octet::cpu {
namespace {

absl::Status Run(ConstTensor x, absl::Span<const PackedMatrix* const> w,
                 absl::Span<const int64_t> row_offsets, bool accumulate,
                 bool swiglu, Tensor out, GemmWorkspace& workspace) {
  if (w.empty()) return absl::OkStatus();
  const WeightPanels panels(w, workspace.panels());
  GemmCall call;
  call.a = x;
  call.panels = &panels;
  call.swiglu = swiglu;
  call.out = out;
  call.accumulate = accumulate;
  return RunGemm(call, row_offsets, workspace);
}

}  // namespace

absl::Status Gemm(ConstTensor x, const PackedMatrix& w, bool accumulate,
                  Tensor out, GemmWorkspace& workspace) {
  const PackedMatrix* const matrices[] = {&w};
  const int64_t row_offsets[] = {0, x.dim(0)};
  return Run(x, matrices, row_offsets, accumulate, /*swiglu=*/false, out,
             workspace);
}

absl::Status GroupedGemm(ConstTensor x, absl::Span<const PackedMatrix* const> w,
                         absl::Span<const int64_t> row_offsets, bool accumulate,
                         Tensor out, GemmWorkspace& workspace) {
  return Run(x, w, row_offsets, accumulate, /*swiglu=*/false, out, workspace);
}

absl::Status GroupedGemmSwiGlu(ConstTensor x,
                               absl::Span<const PackedMatrix* const> w13,
                               absl::Span<const int64_t> row_offsets,
                               Tensor out, GemmWorkspace& workspace) {
  return Run(x, w13, row_offsets, /*accumulate=*/false, /*swiglu=*/true, out,
             workspace);
}

}  // namespace octet::cpu
