// Vectors of f32 and f64 and the few functions on them that kernels share,
// written once for AVX2 (8 / 4 lanes) and AVX-512 (16 / 8 lanes): what is
// included depends on the flags of the translation unit.
//
// For files that CMake compiles per instruction set only. Everything is inlined
// and lives in a namespace named after the instruction set, so two such files
// never share a symbol; they must not use inline functions of the standard
// library or Abseil, whose out-of-line copies would be shared.
//
// Bits. Every lane runs the same operations, and tails use partial loads of
// the same vectors, so a value does not depend on the lane it falls into. Exp,
// Silu and the bf16 conversions give equal bits in both instruction sets.
// Multiply-adds are fused where Fma is written, nowhere else.
// Tested in tests/kernels/vector_math_test.cc.
#ifndef OCTET_KERNELS_CPU_VECTOR_MATH_H_
#define OCTET_KERNELS_CPU_VECTOR_MATH_H_

#include <cstdint>

#if defined(__AVX512F__)
#include "kernels/cpu/vector_avx512.h"
#elif defined(__AVX2__)
#include "kernels/cpu/vector_avx2.h"
#else
#error "compile this file with -mavx2 -mfma or -mavx512{f,bw,dq,vl} -mfma"
#endif

namespace octet::cpu {
#if defined(__AVX512F__)
inline namespace avx512 {
#else
inline namespace avx2 {
#endif

// The first `count` (1 .. kLanes) lanes; the others read as zero and are not
// written.
[[gnu::always_inline]] inline F32 LoadUpTo(const float* from, int64_t count) {
  return count >= kLanes ? Load(from) : LoadPartial(from, count);
}
[[gnu::always_inline]] inline F32 LoadUpTo(const uint16_t* from_bf16,
                                           int64_t count) {
  return count >= kLanes ? LoadBF16(from_bf16)
                         : LoadBF16Partial(from_bf16, count);
}
[[gnu::always_inline]] inline void StoreUpTo(float* to, F32 value,
                                             int64_t count) {
  if (count >= kLanes) {
    Store(to, value);
  } else {
    StorePartial(to, value, count);
  }
}
// Rounds to nearest even, NaN stays NaN: equal to octet::ToBF16.
[[gnu::always_inline]] inline void StoreUpTo(uint16_t* to_bf16, F32 value,
                                             int64_t count) {
  if (count >= kLanes) {
    StoreBF16(to_bf16, value);
  } else {
    StoreBF16Partial(to_bf16, value, count);
  }
}

// e^x within 1 ulp (subnormal results too), exact 0 from -104 down, infinity
// above ln(2^128), NaN for NaN. x = n ln 2 + r with |r| <= ln(2) / 2; e^r by
// its Taylor polynomial of degree 7 (remainder below 0.1 ulp), times 2^n.
[[gnu::always_inline]] inline F32 Exp(F32 x) {
  x = Min(Set(89.0f), Max(Set(-104.0f), x));  // keep NaN: second operand wins
  const F32 n = RoundToNearest(x * Set(1.44269504f));
  // ln 2 in two parts; n times the first is exact.
  const F32 r = Fma(n, Set(-1.42860677e-6f), Fma(n, Set(-0.693145752f), x));
  F32 p = Set(1.0f / 5040);
  p = Fma(p, r, Set(1.0f / 720));
  p = Fma(p, r, Set(1.0f / 120));
  p = Fma(p, r, Set(1.0f / 24));
  p = Fma(p, r, Set(1.0f / 6));
  p = Fma(p, r, Set(0.5f));
  p = Fma(p, r, Set(1.0f));
  p = Fma(p, r, Set(1.0f));
  return ScaleByPowerOf2(p, n);
}

// x / (1 + e^-x).
[[gnu::always_inline]] inline F32 Silu(F32 x) {
  return x / (Set(1.0f) + Exp(Set(0.0f) - x));
}

// e^x for x <= 0, relative error below 1e-15; 0 from -708 down, NaN for NaN.
// The same reduction, degree 13.
[[gnu::always_inline]] inline F64 ExpNonPositive(F64 x) {
  const F64 clamped = Max(Set(-708.0), x);
  const F64 n = RoundToNearest(clamped * Set(1.4426950408889634));
  const F64 r = Fma(n, Set(-1.9082149292705877e-10),
                    Fma(n, Set(-0.69314718036912382), clamped));
  F64 p = Set(1.0 / 6227020800.0);
  p = Fma(p, r, Set(1.0 / 479001600.0));
  p = Fma(p, r, Set(1.0 / 39916800.0));
  p = Fma(p, r, Set(1.0 / 3628800.0));
  p = Fma(p, r, Set(1.0 / 362880.0));
  p = Fma(p, r, Set(1.0 / 40320.0));
  p = Fma(p, r, Set(1.0 / 5040.0));
  p = Fma(p, r, Set(1.0 / 720.0));
  p = Fma(p, r, Set(1.0 / 120.0));
  p = Fma(p, r, Set(1.0 / 24.0));
  p = Fma(p, r, Set(1.0 / 6.0));
  p = Fma(p, r, Set(0.5));
  p = Fma(p, r, Set(1.0));
  p = Fma(p, r, Set(1.0));
  return ZeroWhereBelow(x, Set(-708.0), ScaleByPowerOf2(p, n));
}

}  // namespace avx2 or avx512
}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_VECTOR_MATH_H_
