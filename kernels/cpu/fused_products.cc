#include "kernels/cpu/fused_products.h"

#include <optional>

#include "base/status_macros.h"
#include "kernels/cpu/cpu_objects.h"
#include "kernels/cpu/gemm_driver.h"
#include "kernels/cpu/panel_source.h"

namespace octet::cpu {
namespace {

using Matrices = absl::Span<const PackedMatrix* const>;

// Runs `call` with the panels of w and of the adapter: as they lie (Panels =
// WeightPanels), first A then B, or transposed, first B then A.
template <class Panels>
absl::Status Run(Matrices w, Matrices down, Matrices up, const LowRank& adapter,
                 absl::Span<const int64_t> row_offsets, GemmCall call,
                 GemmWorkspace& gemm, Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  OCTET_RETURN_IF_ERROR(CheckMatrices(w));
  OCTET_RETURN_IF_ERROR(CheckMatrices(down));
  OCTET_RETURN_IF_ERROR(CheckMatrices(up));
  if (w.empty()) return absl::OkStatus();
  const Panels panels(w, gemm.panels());
  call.panels = &panels;
  if (adapter.none()) return RunGemm(call, row_offsets, gemm);
  const Panels up_panels(up, gemm.panels());
  std::optional<Panels> down_panels;
  LowRankTerm term;
  if (!adapter.u_given) {
    term.down = &down_panels.emplace(down, gemm.panels());
  }
  term.u = adapter.u;
  term.up = &up_panels;
  call.low_rank = &term;
  return RunGemm(call, row_offsets, gemm);
}

}  // namespace

absl::Status CpuFusedProducts::Linear(ConstTensor x, Matrices w,
                                      absl::Span<const int64_t> row_offsets,
                                      const LowRank& adapter, bool accumulate,
                                      Tensor out, Stream& stream) {
  GemmCall call;
  call.a = x;
  call.out = out;
  call.accumulate = accumulate;
  return Run<WeightPanels>(w, adapter.a, adapter.b, adapter, row_offsets, call,
                           gemm_, stream);
}

absl::Status CpuFusedProducts::LinearSwiGlu(
    ConstTensor x, Matrices w13, absl::Span<const int64_t> row_offsets,
    const LowRank& adapter, Tensor hidden, Tensor out, Stream& stream) {
  GemmCall call;
  call.a = x;
  call.swiglu = true;
  call.hidden = hidden;
  call.out = out;
  return Run<WeightPanels>(w13, adapter.a, adapter.b, adapter, row_offsets,
                           call, gemm_, stream);
}

absl::Status CpuFusedProducts::LinearBackward(
    ConstTensor dy, Matrices w, absl::Span<const int64_t> row_offsets,
    const LowRank& adapter, bool accumulate, Tensor dx, Stream& stream) {
  GemmCall call;
  call.a = dy;
  call.out = dx;
  call.accumulate = accumulate;
  return Run<TransposedWeightPanels>(w, adapter.b, adapter.a, adapter,
                                     row_offsets, call, gemm_, stream);
}

absl::Status CpuFusedProducts::LinearSwiGluBackward(
    ConstTensor dy, Matrices w2, absl::Span<const int64_t> row_offsets,
    const LowRank& adapter, Tensor hidden, Tensor out, Stream& stream) {
  GemmCall call;
  call.a = dy;
  call.hidden = hidden;
  call.swiglu_backward = &training_kernels_;
  call.out =
      Tensor(out.data(), hidden.dtype(), {hidden.dim(0), hidden.dim(1) / 2});
  return Run<TransposedWeightPanels>(w2, adapter.b, adapter.a, adapter,
                                     row_offsets, call, gemm_, stream);
}

}  // namespace octet::cpu
