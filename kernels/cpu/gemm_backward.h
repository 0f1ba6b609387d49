// Gradients of the matrix products of gemm.h, on the same inner loops.
//
// The gradient of the input reads the packed W itself: its panels are
// transposed block by block into the cache of the thread that multiplies them.
// The bits of a row of dx depend on that row of dy, on W and on the instruction
// set only. The bits of dw depend on the rows of the call, their order and the
// instruction set: each element is one sum over rising rows.
//
// Everything row-major and contiguous; sums are f32; shapes and dtypes are
// trusted (kernels/training_ops.h checks them). Errors: RESOURCE_EXHAUSTED when
// the workspace cannot grow; nothing is written then.
#ifndef OCTET_KERNELS_CPU_GEMM_BACKWARD_H_
#define OCTET_KERNELS_CPU_GEMM_BACKWARD_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cpu/gemm_workspace.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// The matrices are CpuMatrix (packed_matrix.h) and readable.

// dx = dy W, or dx += dy W. dy [T, n] of W's dtype; dx [T, k] f32, or bf16 when
// not accumulating.
absl::Status GemmBackwardInput(ConstTensor dy, const PackedMatrix& w,
                               bool accumulate, Tensor dx,
                               GemmWorkspace& workspace);

// The same in groups of rows, as GroupedGemm.
absl::Status GroupedGemmBackwardInput(ConstTensor dy,
                                      absl::Span<const PackedMatrix* const> w,
                                      absl::Span<const int64_t> row_offsets,
                                      bool accumulate, Tensor dx,
                                      GemmWorkspace& workspace);

// dw = scale dy^T x, or dw += scale dy^T x: the product is summed, scaled, then
// added. x [T, k] and dy [T, n] of one dtype, f32 or bf16; dw [n, k] f32. T = 0
// gives zeros, or leaves dw as it is.
absl::Status GemmBackwardWeight(ConstTensor x, ConstTensor dy, float scale,
                                bool accumulate, Tensor dw,
                                GemmWorkspace& workspace);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_GEMM_BACKWARD_H_
