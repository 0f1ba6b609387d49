// What becomes of a tile's sums: SwiGLU, rounding, and the store.
#ifndef OCTET_KERNELS_CUDA_GEMM_EPILOGUE_CUH_
#define OCTET_KERNELS_CUDA_GEMM_EPILOGUE_CUH_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/gemm_kernels.h"
#include "kernels/cuda/values.cuh"

namespace octet::cuda {

// silu(gate) * up, silu(a) = a / (1 + exp(-a)).
__device__ __forceinline__ float SwiGlu(float gate, float up) {
  return gate / (1.0f + expf(-gate)) * up;
}

template <int kCount, typename Out>
__device__ __forceinline__ void StoreValues(Out* to, const float* values,
                                            int32_t count, bool aligned) {
  if (aligned && count >= kCount) {
    if constexpr (kCount == 8 && sizeof(Out) == 2) {
      StoreEight(to, values);
    } else {
#pragma unroll
      for (int i = 0; i < kCount; i += 4) StoreFour(to + i, values + i);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (i < count) StoreOne(to + i, values[i]);
  }
}

// Puts kCount (4 or 8) neighbouring values of a row where args.output says;
// columns past n, all of them perhaps, are dropped. `values` is used up.
template <int kCount>
__device__ __forceinline__ void StoreRowPart(const GemmArgs& args, int64_t row,
                                             int32_t col,
                                             float (&values)[kCount]) {
  const int32_t count = args.n - col;
  const int64_t at = row * args.n + col;
  if (args.output == GemmOutput::kBF16) {
    StoreValues<kCount>(static_cast<__nv_bfloat16*>(args.out) + at, values,
                        count, args.out_aligned);
    return;
  }
  float* out = static_cast<float*>(args.out) + at;
  if (args.output == GemmOutput::kAddF32) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (i < count) values[i] += out[i];
    }
  }
  StoreValues<kCount>(out, values, count, args.out_aligned);
}

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_GEMM_EPILOGUE_CUH_
