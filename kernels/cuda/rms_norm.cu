#include "kernels/cuda/launch.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/values.cuh"

namespace octet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int64_t kStep = 4 * kThreads;  // columns of one round of the block
constexpr unsigned kAllLanes = 0xffffffffu;

bool IsAligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

// Columns [col, col + 4) of a row; zeros past its end.
template <bool kAligned>
__device__ __forceinline__ void LoadColumns(const float* row, int64_t col,
                                            int64_t hidden,
                                            float (&values)[4]) {
  if constexpr (kAligned) {
    LoadFour(row + col, values);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      values[i] = col + i < hidden ? row[col + i] : 0.0f;
    }
  }
}

// The sum over the block, the same in every thread.
__device__ float BlockSum(float sum) {
  __shared__ float warp_sums[kWarps];
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(kAllLanes, sum, distance);
  }
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = warp_sums[0];
#pragma unroll
  for (int warp = 1; warp < kWarps; ++warp) sum += warp_sums[warp];
  return sum;
}

template <typename Out, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    RmsNormKernel(const RmsNormArgs args) {
  const int64_t hidden = args.hidden;
  const float* x = args.x + int64_t{blockIdx.x} * hidden;
  Out* out = static_cast<Out*>(args.out) + int64_t{blockIdx.x} * hidden;
  const int64_t first = int64_t{4} * threadIdx.x;
  float values[4];
  float sum = 0.0f;
  for (int64_t col = first; col < hidden; col += kStep) {
    LoadColumns<kAligned>(x, col, hidden, values);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum = fmaf(values[i], values[i], sum);
  }
  const float mean = BlockSum(sum) / static_cast<float>(hidden);
  const float scale = 1.0f / sqrtf(mean + args.eps);
  for (int64_t col = first; col < hidden; col += kStep) {
    float weights[4];
    LoadColumns<kAligned>(x, col, hidden, values);
    LoadColumns<kAligned>(args.weight, col, hidden, weights);
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] = values[i] * scale * weights[i];
    if constexpr (kAligned) {
      StoreFour(out + col, values);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (col + i < hidden) StoreOne(out + col + i, values[i]);
      }
    }
  }
}

template <typename Out>
cudaError_t Launch(const RmsNormArgs& args, cudaStream_t stream) {
  const bool aligned = args.hidden % 4 == 0 && IsAligned(args.x) &&
                       IsAligned(args.weight) && IsAligned(args.out);
  const auto blocks = static_cast<unsigned>(args.num_rows);
  return aligned ? OCTET_LAUNCH((RmsNormKernel<Out, true>), blocks, kThreads, 0,
                                stream, args)
                 : OCTET_LAUNCH((RmsNormKernel<Out, false>), blocks, kThreads,
                                0, stream, args);
}

}  // namespace

cudaError_t LaunchRmsNorm(const RmsNormArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0 || args.hidden == 0) return cudaSuccess;
  return args.out_is_bf16 ? Launch<__nv_bfloat16>(args, stream)
                          : Launch<float>(args, stream);
}

}  // namespace octet::cuda
