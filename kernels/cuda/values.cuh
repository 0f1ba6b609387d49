// Rows of f32 or bf16 as registers of f32: loads and stores of one, four or
// eight neighbours. Four and eight go as 8 or 16 byte words, so the address is
// a multiple of the smaller of their size and 16.
#ifndef OCTET_KERNELS_CUDA_VALUES_CUH_
#define OCTET_KERNELS_CUDA_VALUES_CUH_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace octet::cuda {

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
// A plain word: the checked build does not see the store of a class object that
// a function returns, nor the load of one that is passed to a function.
__device__ __forceinline__ void StoreOne(__nv_bfloat16* to, float value) {
  const unsigned short bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
  *reinterpret_cast<unsigned short*>(to) = bits;
}

__device__ __forceinline__ float LoadOne(const float* from) { return *from; }
__device__ __forceinline__ float LoadOne(const __nv_bfloat16* from) {
  const unsigned short bits = *reinterpret_cast<const unsigned short*>(from);
  return __bfloat162float(__ushort_as_bfloat16(bits));
}
__device__ __forceinline__ void LoadFour(const float* from, float* values) {
  const float4 word = *reinterpret_cast<const float4*>(from);
  values[0] = word.x;
  values[1] = word.y;
  values[2] = word.z;
  values[3] = word.w;
}
__device__ __forceinline__ void LoadEight(const __nv_bfloat16* from,
                                          float* values) {
  const uint4 word = *reinterpret_cast<const uint4*>(from);
  const uint32_t pairs[4] = {word.x, word.y, word.z, word.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = __uint_as_float(pairs[i] << 16);
    values[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
  }
}

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_VALUES_CUH_
