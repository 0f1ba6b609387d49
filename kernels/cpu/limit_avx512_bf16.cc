// Compiled with -mavx512bf16.
#include "kernels/cpu/limit_simd-inl.h"

namespace octet::cpu {

int64_t PeakBf16Avx512(int64_t rounds) {
  MultiplyAdd(rounds, [](F32 sum, F32 a, F32 b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
  });
  return rounds * kChains * kLanes * 4;
}

}  // namespace octet::cpu
