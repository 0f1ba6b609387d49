// Matrix products of the CPU backend: out = x W^T, plain, in groups (one W per
// expert), and in groups with the SwiGLU activation fused in.
//
// The bits of a row of `out` depend on that row of x, on W and on the
// instruction set only: not on the other rows, the number of threads, the
// blocking, or on the row being part of a group.
//
// x and out are row-major and contiguous; x has W's dtype, f32 or bf16. Sums
// are f32. Shapes and dtypes are trusted (kernels/ops.h checks them). Errors:
// RESOURCE_EXHAUSTED when the workspace cannot grow; nothing is written then.
#ifndef OCTET_KERNELS_CPU_GEMM_H_
#define OCTET_KERNELS_CPU_GEMM_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cpu/gemm_workspace.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// The matrices are CpuMatrix (packed_matrix.h) and readable.

// out = x W^T, or out += x W^T. x [T, k]; out [T, n] f32, or bf16 when not
// accumulating.
absl::Status Gemm(ConstTensor x, const PackedMatrix& w, bool accumulate,
                  Tensor out, GemmWorkspace& workspace);

// Rows [row_offsets[g], row_offsets[g + 1]) of x multiply w[g]. row_offsets has
// w.size() + 1 rising entries; all w are [n, k]. x [T, k]; out [T, n] f32, or
// bf16 when not accumulating. Empty groups cost nothing.
absl::Status GroupedGemm(ConstTensor x, absl::Span<const PackedMatrix* const> w,
                         absl::Span<const int64_t> row_offsets, bool accumulate,
                         Tensor out, GemmWorkspace& workspace);

// out = silu(x W1^T) * (x W3^T), silu(a) = a / (1 + exp(-a)), with w13[g]
// [2F, k]: rows [0, F) are W1's, rows [F, 2F) are W3's. out [T, F] f32 or bf16.
absl::Status GroupedGemmSwiGlu(ConstTensor x,
                               absl::Span<const PackedMatrix* const> w13,
                               absl::Span<const int64_t> row_offsets,
                               Tensor out, GemmWorkspace& workspace);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_GEMM_H_
