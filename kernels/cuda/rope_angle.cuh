// The angle of a position by the digits of rope.h's table.
#ifndef OCTET_KERNELS_CUDA_ROPE_ANGLE_CUH_
#define OCTET_KERNELS_CUDA_ROPE_ANGLE_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/rope.h"

namespace octet::cuda {

// cos and sin of the sum of the angles.
__device__ __forceinline__ double2 Turn(double2 a, double2 b) {
  return make_double2(fma(a.x, b.x, -(a.y * b.y)), fma(a.x, b.y, a.y * b.x));
}

// The row of the table that belongs to one digit of a position.
template <int kDigit>
__device__ __forceinline__ double2 DigitTurn(const double2* table, int32_t half,
                                             int32_t position) {
  constexpr int kShift = kRopeShift[kDigit];
  constexpr int kRows = kRopeDigitRows[kDigit];
  constexpr int kFirst = kRopeFirstRow[kDigit];
  return table[int64_t{kFirst + (position >> kShift & (kRows - 1))} * half];
}

// The cosine and sine of pair i of half = D/2 at a position.
__device__ __forceinline__ double2 RopeCosSin(const double2* table,
                                              int32_t half, int32_t position,
                                              int32_t i) {
  table += i;
  return Turn(Turn(DigitTurn<2>(table, half, position),
                   DigitTurn<1>(table, half, position)),
              DigitTurn<0>(table, half, position));
}

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_ROPE_ANGLE_CUH_
