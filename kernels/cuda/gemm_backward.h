// The products of the backward pass as their launcher sees them.
//
// One kernel for both: out[m, c] = scale sum over r of a(m, r) b[r, c], where b
// is row-major in r, and a is dy: by rows for dx = dy W (r over the n outputs),
// by columns for dw = dy^T x (r over the T rows).
//
// Work. A block of 256 threads makes 64 x 64 of out, a thread 4 x 4; 16 values
// of r at a time go through 8 KiB of shared memory. 64 x 64 makes 32 flops an
// element loaded. Operands are widened to f32 and multiplied by fused
// multiply-adds, bf16 too: its products are exact in f32, so only the sums
// round. Flops 2 M C R; the floor is that of f32 without tensor cores.
//
// Bits. An element is one chain of fused multiply-adds over rising r, whatever
// the tile: a row of dx depends on that row of dy and W alone, dw on the rows
// in their order.
#ifndef OCTET_KERNELS_CUDA_GEMM_BACKWARD_H_
#define OCTET_KERNELS_CUDA_GEMM_BACKWARD_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/elements.h"

namespace octet::cuda {

struct GemmBackwardArgs {
  const void* a = nullptr;
  const void* b = nullptr;  // [depth, ld_b], of a's dtype
  Elements out;             // [num_rows, num_cols]
  int64_t num_rows = 0;     // M
  int64_t num_cols = 0;     // C
  int64_t depth = 0;        // R
  int64_t ld_a = 0;         // elements from row to row
  int64_t ld_b = 0;
  float scale = 1.0f;
  bool is_bf16 = false;     // a and b; else f32
  bool a_by_cols = false;   // a [depth, ld_a], else [num_rows, ld_a]
  bool accumulate = false;  // the sum is added to out, which is f32
};

// Asynchronous. Returns the error of the launch. depth may be 0.
cudaError_t LaunchGemmBackward(const GemmBackwardArgs& args,
                               cudaStream_t stream);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_GEMM_BACKWARD_H_
