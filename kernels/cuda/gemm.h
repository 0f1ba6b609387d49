// Matrix products of the CUDA backend: out = x W^T, plain, in groups (one W per
// expert, all in one launch), and in groups with SwiGLU in the epilogue.
//
// Work. The blocks of one launch walk a list of tiles of 128 rows by 128
// columns, group after group, and in a group all row blocks of 128 columns
// before the next 128, so that W is read from memory once. The copies of a
// tile's operands (gemm_tiles.cuh) run two or, where shared memory allows, four
// stages ahead and do not stop between tiles. bf16 goes through tensor cores
// (gemm_bf16.cu), f32 through fused multiply-adds (gemm_f32.cu).
//
// Why these tiles. 128 x 128 makes 64 flops a byte of L2 traffic, and a warp's
// 64 x 32 part needs 24 cycles of shared memory for 32 of an A100's tensor
// cores. With few rows (decode) only strips of 16 rows are multiplied, and the
// tile is a reader of W: each multiprocessor has two or four stages of
// 16 KiB of W under way (gemm_kernels.h says when that is enough). The tile
// never depends on the number of rows, so nor do a row's bits.
//
// Cost of a group of M rows: flops 2 M n k (4 M F k with SwiGLU); bytes s (n k
// + M k) + o M n, s and o the sizes of the compute and the output dtype (n =
// 2F, output M F with SwiGLU), if x, M k s bytes, stays in L2. The floor is
// max(flops / peak, bytes / bandwidth); for bf16 W is the bigger share below M
// = peak / bandwidth rows (an A100: 312e12 / 2.0e12 = 156 flops a byte, M =
// 156). Of that floor are lost: M rounded up to 16 (bf16 and f32), n to 128, k
// to 64 (f32: 32), and the last round of tiles: tiles / (multiprocessors *
// rounds) of them busy. n / 128 below the number of multiprocessors leaves some
// idle in decode. On sm_90 and sm_100 the peak is that of wgmma and tcgen05,
// which mma.sync does not reach: the floor of many rows stays out of reach.
//
// Bits. A row of out depends on that row of x, on W and on the dtype of x only:
// not on other rows, groups, launches or the GPU's size.
//
// x and out are row-major, contiguous and in device memory; every W is a
// CudaPackedMatrix of x's dtype. Shapes and dtypes are trusted (kernels/ops.h
// checks them). Calls are asynchronous on `stream`. Errors: INTERNAL names the
// call that CUDA refused; INVALID_ARGUMENT for 2^31 rows or more.
#ifndef OCTET_KERNELS_CUDA_GEMM_H_
#define OCTET_KERNELS_CUDA_GEMM_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace octet::cuda {

// Neither changes a bit of the results; other values than these are for tests.
struct GemmLauncherOptions {
  int max_blocks = 0;  // of a launch; 0: one a multiprocessor
  int max_stages = 5;  // of the pipeline; the GPU may have room for 3 only
};

// Launches products on the device that was current at Create. Stateless after
// that: may be shared and copied.
class GemmLauncher {
 public:
  // FAILED_PRECONDITION without a usable GPU.
  static absl::StatusOr<GemmLauncher> Create(
      const GemmLauncherOptions& options = {});

  // out = x W^T, or out += x W^T. x [T, k]; out [T, n] f32, or bf16 when not
  // accumulating. The product is summed first, then added to out.
  absl::Status Gemm(ConstTensor x, const PackedMatrix& w, bool accumulate,
                    Tensor out, cudaStream_t stream) const;

  // Rows [row_offsets[g], row_offsets[g + 1]) of x multiply w[g]. row_offsets
  // (host) has w.size() + 1 rising entries from 0 to T; all w are [n, k]. x [T,
  // k]; out [T, n] f32 or bf16. Empty groups cost nothing.
  absl::Status GroupedGemm(ConstTensor x,
                           absl::Span<const PackedMatrix* const> w,
                           absl::Span<const int64_t> row_offsets, Tensor out,
                           cudaStream_t stream) const;

  // The same, added to out, f32; each product is summed first.
  absl::Status GroupedGemmAccumulate(ConstTensor x,
                                     absl::Span<const PackedMatrix* const> w,
                                     absl::Span<const int64_t> row_offsets,
                                     Tensor out, cudaStream_t stream) const;

  // out = silu(x W1^T) * (x W3^T), silu(a) = a / (1 + exp(-a)), with w13[g]
  // [2F, k]: rows [0, F) are W1's, rows [F, 2F) are W3's. out [T, F] f32 or
  // bf16.
  absl::Status GroupedGemmSwiGlu(ConstTensor x,
                                 absl::Span<const PackedMatrix* const> w13,
                                 absl::Span<const int64_t> row_offsets,
                                 Tensor out, cudaStream_t stream) const;

 private:
  GemmLauncher() = default;

  enum class Form { kPlain, kAccumulate, kSwiGlu };
  absl::Status Run(ConstTensor x, absl::Span<const PackedMatrix* const> w,
                   absl::Span<const int64_t> row_offsets, Form form, Tensor out,
                   cudaStream_t stream) const;

  int max_blocks_ = 0;
  bool deep_ = false;
};

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_GEMM_H_
