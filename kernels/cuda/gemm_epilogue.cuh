// What becomes of a tile's sums: SwiGLU, rounding, and the store.
#ifndef OCTET_KERNELS_CUDA_GEMM_EPILOGUE_CUH_
#define OCTET_KERNELS_CUDA_GEMM_EPILOGUE_CUH_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/gemm_kernels.h"

namespace octet::cuda {

// silu(gate) * up, silu(a) = a / (1 + exp(-a)).
__device__ __forceinline__ float SwiGlu(float gate, float up) {
  return gate / (1.0f + expf(-gate)) * up;
}

__device__ __forceinline__ uint32_t PackBf16(float low, float high) {
  return static_cast<uint32_t>(__bfloat16_as_ushort(__float2bfloat16_rn(low))) |
         static_cast<uint32_t>(__bfloat16_as_ushort(__float2bfloat16_rn(high)))
             << 16;
}

// Four f32, or four bf16 of them, to an address that is a multiple of their
// size.
__device__ __forceinline__ void StoreFour(float* to, const float* values) {
  *reinterpret_cast<float4*>(to) =
      make_float4(values[0], values[1], values[2], values[3]);
}
__device__ __forceinline__ void StoreFour(__nv_bfloat16* to,
                                          const float* values) {
  *reinterpret_cast<uint2*>(to) = make_uint2(PackBf16(values[0], values[1]),
                                             PackBf16(values[2], values[3]));
}
__device__ __forceinline__ void StoreEight(__nv_bfloat16* to,
                                           const float* values) {
  *reinterpret_cast<uint4*>(to) = make_uint4(
      PackBf16(values[0], values[1]), PackBf16(values[2], values[3]),
      PackBf16(values[4], values[5]), PackBf16(values[6], values[7]));
}
__device__ __forceinline__ void StoreOne(float* to, float value) {
  *to = value;
}
__device__ __forceinline__ void StoreOne(__nv_bfloat16* to, float value) {
  *to = __float2bfloat16_rn(value);
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
