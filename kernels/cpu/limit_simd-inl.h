// The loops of limit_kernels.h over vector_math.h, for files that are compiled
// per instruction set.
#ifndef OCTET_KERNELS_CPU_LIMIT_SIMD_INL_H_
#define OCTET_KERNELS_CPU_LIMIT_SIMD_INL_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/limit_kernels.h"
#include "kernels/cpu/vector_math.h"

namespace octet::cpu {
namespace {

constexpr int kChains = 12;  // covers 2 units of 6 cycles; fits 16 registers

// Keeps the compiler from knowing, or dropping, the value.
[[gnu::always_inline]] inline void Opaque(F32& value) {
#if defined(__AVX512F__)
  asm volatile("" : "+v"(value));
#else
  asm volatile("" : "+x"(value));
#endif
}

[[gnu::always_inline]] inline void ReadAll(const std::byte* data,
                                           size_t num_bytes) {
  constexpr size_t kLine = 64;
  constexpr size_t kAhead = 4096;
  F32 sums[4] = {Set(0.0f), Set(0.0f), Set(0.0f), Set(0.0f)};
  for (size_t at = 0; at < num_bytes; at += 4 * kLine) {
    for (size_t i = 0; i < 4; ++i) {
      const std::byte* line = data + at + i * kLine;
      _mm_prefetch(reinterpret_cast<const char*>(line + kAhead), _MM_HINT_T0);
      for (size_t part = 0; part < kLine; part += kLanes * 4) {
        sums[i] = sums[i] + Load(reinterpret_cast<const float*>(line + part));
      }
    }
  }
  for (F32& sum : sums) Opaque(sum);
}

// Op(sum, a, b) is one multiply-add of vectors.
template <class Op>
[[gnu::always_inline]] inline void MultiplyAdd(int64_t rounds, Op op) {
  F32 sums[kChains];
  F32 a = Set(1.0f);
  F32 b = Set(0.0f);
  Opaque(a);
  Opaque(b);
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) sums[i] = Set(0.0f);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) {
      sums[i] = op(sums[i], a, b);
      Opaque(sums[i]);
    }
  }
}

}  // namespace
}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_LIMIT_SIMD_INL_H_
