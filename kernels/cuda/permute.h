// Backend::GatherRows and Backend::CombineRows on the GPU.
//
// Both move rows: a warp takes one row (Gather) or token (Combine) and 128
// units of its columns, 4 a lane, all read before any is written, so that 2 KiB
// a warp are under way at once and even a single token's row keeps several
// warps busy. A unit is 16 bytes of the source where rows and addresses allow
// it (H of 8 bf16 or 4 f32, which every model has), else one element.
//
// GatherRows: bytes 2 N H s + 4 N, s the element size; no arithmetic.
// CombineRows: bytes T K H s + 8 T H + 8 T K, flops 2 T K H; below one flop a
// byte, so the roof is the memory's bandwidth: the time is bytes / bandwidth.
// Formula: out[t] += sum, sum = fma(weights[t, k], rows[slot_rows[t, k]], sum)
// from sum = 0 in rising k. Bits: depend on the token's K rows and weights
// only.
//
// Row indices are the caller's duty, as kernels/ops.h says.
#ifndef OCTET_KERNELS_CUDA_PERMUTE_H_
#define OCTET_KERNELS_CUDA_PERMUTE_H_

#include <cuda_runtime.h>

#include <cstdint>

namespace octet::cuda {

struct GatherRowsArgs {
  const void* src = nullptr;         // [S, H]
  const int32_t* row_ids = nullptr;  // [N], each in [0, S)
  void* out = nullptr;               // [N, H]
  int64_t num_rows = 0;              // N
  int64_t row_bytes = 0;             // of H elements
};

struct CombineRowsArgs {
  const void* rows = nullptr;          // [N, H] bf16 or f32
  bool rows_are_bf16 = false;          // else f32
  const int32_t* slot_rows = nullptr;  // [T, K], each in [0, N)
  const float* weights = nullptr;      // [T, K]
  float* out = nullptr;                // [T, H], added to
  int64_t num_tokens = 0;              // T
  int32_t top_k = 0;                   // K
  int32_t hidden = 0;                  // H
};

// Asynchronous. Return the error of the launch.
cudaError_t LaunchGatherRows(const GatherRowsArgs& args, cudaStream_t stream);
cudaError_t LaunchCombineRows(const CombineRowsArgs& args, cudaStream_t stream);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_PERMUTE_H_
