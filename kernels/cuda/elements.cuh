// Elements of f32 or bf16 whose dtype is known when the kernel runs. The choice
// is the same for all threads, so it costs no divergence.
#ifndef OCTET_KERNELS_CUDA_ELEMENTS_CUH_
#define OCTET_KERNELS_CUDA_ELEMENTS_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/elements.h"
#include "kernels/cuda/values.cuh"

namespace octet::cuda {

__device__ __forceinline__ float LoadAt(ConstElements from, int64_t i) {
  return from.is_bf16
             ? LoadOne(static_cast<const __nv_bfloat16*>(from.data) + i)
             : static_cast<const float*>(from.data)[i];
}

__device__ __forceinline__ void StoreAt(Elements to, int64_t i, float value) {
  if (to.is_bf16) {
    StoreOne(static_cast<__nv_bfloat16*>(to.data) + i, value);
  } else {
    static_cast<float*>(to.data)[i] = value;
  }
}

// The sum over the lanes of the warp by halves (distance 16, 8, 4, 2, 1), the
// same in every lane.
__device__ __forceinline__ float WarpSum(float sum) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  }
  return sum;
}

// The sum over a block of kThreads threads in a tree, the same in every thread.
// `shared` has room for kThreads values; free again when the call returns.
template <int kThreads, typename T>
__device__ __forceinline__ T BlockSum(T sum, T* shared) {
  shared[threadIdx.x] = sum;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) {
      shared[threadIdx.x] += shared[threadIdx.x + half];
    }
    __syncthreads();
  }
  const T total = shared[0];
  __syncthreads();
  return total;
}

// Blocks of `threads` for n threads.
inline unsigned BlocksFor(int64_t n, int threads) {
  return static_cast<unsigned>((n + threads - 1) / threads);
}

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_ELEMENTS_CUH_
