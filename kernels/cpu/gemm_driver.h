// The one driver of all matrix products: out = A B in groups of rows, for A
// from rows or columns of a tensor, B from any PanelSource, with a low-rank
// addition, and with what happens to the sums at the end. Internal to
// kernels/cpu; gemm.h, gemm_backward.h and fused_products.h are its callers.
#ifndef OCTET_KERNELS_CPU_GEMM_DRIVER_H_
#define OCTET_KERNELS_CPU_GEMM_DRIVER_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/cpu/gemm_workspace.h"
#include "kernels/cpu/panel_source.h"
#include "kernels/cpu/training_kernels.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// The sum of a product A B goes on with u `up`, in the same chain of
// multiply-adds, where u = A `down`, rounded to A's dtype.
struct LowRankTerm {
  // Without it u is given. Of A's dtype, as `up`.
  const PanelSource* down = nullptr;
  Tensor u;  // [T, r] of A's dtype
  const PanelSource* up = nullptr;
};

struct GemmCall {
  // The rows of A are those of a [T, k], or the columns [a_column, ...) of its
  // transpose, a [k, N]; as many as `out` has rows. f32 or bf16.
  ConstTensor a;
  bool a_transposed = false;
  int64_t a_column = 0;
  // Of a's dtype; panel p gives columns [32 p, 32 p + 32) of out, or with
  // swiglu of the product whose first half passes through silu.
  const PanelSource* panels = nullptr;
  const LowRankTerm* low_rank = nullptr;  // not when a_transposed
  bool swiglu = false;
  // [T, n] f32, or bf16 when not accumulating: scale times the sum, added to
  // what is there if `accumulate`.
  Tensor out;
  float scale = 1.0f;
  bool accumulate = false;
  bool out_transposed = false;  // out is [n, T] f32
  // [T, 2F]. With swiglu: unless without data, gets the product before silu.
  // With swiglu_backward: the product is the gradient of SwiGLU's output [T, F]
  // and `hidden` its input, which its own gradient takes the place of; `out`,
  // of hidden's dtype, gets SwiGLU's output, or only has its shape.
  Tensor hidden;
  const TrainingKernels* swiglu_backward = nullptr;
};

// Rows [row_offsets[g], row_offsets[g + 1]) multiply the panels of group g.
// RESOURCE_EXHAUSTED when the workspace cannot grow; nothing is written then.
absl::Status RunGemm(const GemmCall& call,
                     absl::Span<const int64_t> row_offsets,
                     GemmWorkspace& workspace);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_GEMM_DRIVER_H_
