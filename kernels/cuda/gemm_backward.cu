#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/gemm_backward.h"
#include "kernels/cuda/launch.h"

namespace octet::cuda {
namespace {

constexpr int kTile = 64;   // rows and columns of out
constexpr int kDepth = 16;  // values of r at a time
constexpr int kThreads = 256;
constexpr int kPart = 4;  // rows and columns of a thread

// Element [row, r] of the left operand, of the right one [r, col]; zero
// outside.
template <typename T, bool kByCols>
__device__ __forceinline__ float LeftAt(const GemmBackwardArgs& args,
                                        int64_t row, int64_t r) {
  if (row >= args.num_rows || r >= args.depth) return 0.0f;
  return LoadOne(static_cast<const T*>(args.a) +
                 (kByCols ? r * args.ld_a + row : row * args.ld_a + r));
}
template <typename T>
__device__ __forceinline__ float RightAt(const GemmBackwardArgs& args,
                                         int64_t r, int64_t col) {
  if (col >= args.num_cols || r >= args.depth) return 0.0f;
  return LoadOne(static_cast<const T*>(args.b) + r * args.ld_b + col);
}

// Neighbouring threads load neighbours in memory.
template <typename T, bool kByCols>
__device__ __forceinline__ void LoadTiles(const GemmBackwardArgs& args,
                                          int64_t row, int64_t col, int64_t r,
                                          float (*left)[kTile + 1],
                                          float (*right)[kTile]) {
#pragma unroll
  for (int at = 0; at < kTile * kDepth; at += kThreads) {
    const int i = at + static_cast<int>(threadIdx.x);
    const int d = kByCols ? i / kTile : i % kDepth;
    const int m = kByCols ? i % kTile : i / kDepth;
    left[d][m] = LeftAt<T, kByCols>(args, row + m, r + d);
    right[i / kTile][i % kTile] =
        RightAt<T>(args, r + i / kTile, col + i % kTile);
  }
}

template <typename T, bool kByCols>
__global__ void __launch_bounds__(kThreads, 2)
    GemmBackwardKernel(const GemmBackwardArgs args) {
  __shared__ float left[kDepth][kTile + 1];
  __shared__ float right[kDepth][kTile];
  const int64_t row = int64_t{blockIdx.x} * kTile;
  const int64_t col = int64_t{blockIdx.y} * kTile;
  // A thread's rows are neighbours; its columns lie 16 apart, so that lanes
  // store neighbours.
  const int m = static_cast<int>(threadIdx.x) / 16 * kPart;
  const int c = static_cast<int>(threadIdx.x) % 16;
  float sums[kPart][kPart] = {};
  for (int64_t r = 0; r < args.depth; r += kDepth) {
    LoadTiles<T, kByCols>(args, row, col, r, left, right);
    __syncthreads();
    const int depth = static_cast<int>(
        args.depth - r < kDepth ? args.depth - r : int64_t{kDepth});
    for (int d = 0; d < depth; ++d) {
#pragma unroll
      for (int i = 0; i < kPart; ++i) {
        const float a = left[d][m + i];
#pragma unroll
        for (int j = 0; j < kPart; ++j) {
          sums[i][j] = fmaf(a, right[d][c + 16 * j], sums[i][j]);
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kPart; ++i) {
#pragma unroll
    for (int j = 0; j < kPart; ++j) {
      const int64_t to_row = row + m + i;
      const int64_t to_col = col + c + 16 * j;
      if (to_row >= args.num_rows || to_col >= args.num_cols) continue;
      const int64_t at = to_row * args.num_cols + to_col;
      float value = args.scale * sums[i][j];
      if (args.accumulate) {
        value += static_cast<const float*>(args.out.data)[at];
      }
      StoreAt(args.out, at, value);
    }
  }
}

template <typename T>
cudaError_t Launch(const GemmBackwardArgs& args, cudaStream_t stream) {
  const dim3 grid(BlocksFor(args.num_rows, kTile),
                  BlocksFor(args.num_cols, kTile));
  return args.a_by_cols ? OCTET_LAUNCH((GemmBackwardKernel<T, true>), grid,
                                       kThreads, 0, stream, args)
                        : OCTET_LAUNCH((GemmBackwardKernel<T, false>), grid,
                                       kThreads, 0, stream, args);
}

}  // namespace

cudaError_t LaunchGemmBackward(const GemmBackwardArgs& args,
                               cudaStream_t stream) {
  if (args.num_rows * args.num_cols == 0) return cudaSuccess;
  return args.is_bf16 ? Launch<__nv_bfloat16>(args, stream)
                      : Launch<float>(args, stream);
}

}  // namespace octet::cuda
