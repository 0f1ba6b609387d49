// Compiled with -mavx2 -mfma.
#include "kernels/cpu/limit_simd-inl.h"

namespace octet::cpu {

void ReadAvx2(const std::byte* data, size_t num_bytes) {
  ReadAll(data, num_bytes);
}

int64_t PeakF32Avx2(int64_t rounds) {
  MultiplyAdd(rounds, [](F32 sum, F32 a, F32 b) { return Fma(a, b, sum); });
  return rounds * kChains * kLanes * 2;
}

}  // namespace octet::cpu
