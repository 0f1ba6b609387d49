// The AVX-512 side of kernels/cpu/vector_math.h, which says what the functions
// mean. Include that file.
#ifndef OCTET_KERNELS_CPU_VECTOR_AVX512_H_
#define OCTET_KERNELS_CPU_VECTOR_AVX512_H_

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push  // g++ 12's own header trips over itself
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <cstdint>

namespace octet::cpu {
inline namespace avx512 {

using F32 = __m512;
using F64 = __m512d;
inline constexpr int kLanes = 16;    // of F32
inline constexpr int kLanesF64 = 8;  // of F64

[[gnu::always_inline]] inline F32 Set(float value) {
  return _mm512_set1_ps(value);
}
[[gnu::always_inline]] inline F64 Set(double value) {
  return _mm512_set1_pd(value);
}
[[gnu::always_inline]] inline F32 Load(const float* from) {
  return _mm512_loadu_ps(from);
}
[[gnu::always_inline]] inline void Store(float* to, F32 value) {
  _mm512_storeu_ps(to, value);
}
[[gnu::always_inline]] inline void Store(double* to, F64 value) {
  _mm512_storeu_pd(to, value);
}
[[gnu::always_inline]] inline __mmask16 FirstLanes(int64_t count) {
  return static_cast<__mmask16>((1u << count) - 1);
}
[[gnu::always_inline]] inline F32 LoadPartial(const float* from,
                                              int64_t count) {
  return _mm512_maskz_loadu_ps(FirstLanes(count), from);
}
[[gnu::always_inline]] inline void StorePartial(float* to, F32 value,
                                                int64_t count) {
  _mm512_mask_storeu_ps(to, FirstLanes(count), value);
}
[[gnu::always_inline]] inline F32 WidenBF16(__m256i bits) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
[[gnu::always_inline]] inline F32 LoadBF16(const uint16_t* from) {
  return WidenBF16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
[[gnu::always_inline]] inline F32 LoadBF16Partial(const uint16_t* from,
                                                  int64_t count) {
  return WidenBF16(_mm256_maskz_loadu_epi16(FirstLanes(count), from));
}
// The processor's own conversion flushes subnormals, so it is not used.
[[gnu::always_inline]] inline __m256i RoundToBF16(F32 value) {
  const __m512i bits = _mm512_castps_si512(value);
  const __m512i odd =
      _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(
      _mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16));
}
[[gnu::always_inline]] inline void StoreBF16(uint16_t* to, F32 value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), RoundToBF16(value));
}
[[gnu::always_inline]] inline void StoreBF16Partial(uint16_t* to, F32 value,
                                                    int64_t count) {
  _mm256_mask_storeu_epi16(to, FirstLanes(count), RoundToBF16(value));
}
// 2 kLanes values, rounded, side by side.
[[gnu::always_inline]] inline F32 JoinBF16(F32 first, F32 second) {
  return _mm512_castsi512_ps(_mm512_inserti64x4(
      _mm512_castsi256_si512(RoundToBF16(first)), RoundToBF16(second), 1));
}
// kLanesF64 floats, widened.
[[gnu::always_inline]] inline F64 LoadAsF64(const float* from) {
  return _mm512_cvtps_pd(_mm256_loadu_ps(from));
}

[[gnu::always_inline]] inline F32 Fma(F32 a, F32 b, F32 c) {
  return _mm512_fmadd_ps(a, b, c);
}
[[gnu::always_inline]] inline F64 Fma(F64 a, F64 b, F64 c) {
  return _mm512_fmadd_pd(a, b, c);
}
// The second operand when either is NaN.
[[gnu::always_inline]] inline F32 Max(F32 a, F32 b) {
  return _mm512_max_ps(a, b);
}
[[gnu::always_inline]] inline F64 Max(F64 a, F64 b) {
  return _mm512_max_pd(a, b);
}
[[gnu::always_inline]] inline F32 Min(F32 a, F32 b) {
  return _mm512_min_ps(a, b);
}
[[gnu::always_inline]] inline F32 RoundToNearest(F32 value) {
  return _mm512_roundscale_ps(value, 0);
}
[[gnu::always_inline]] inline F64 RoundToNearest(F64 value) {
  return _mm512_roundscale_pd(value, 0);
}
// value * 2^exponent, rounded once; exponent is a whole number in [-151, 129].
[[gnu::always_inline]] inline F32 ScaleByPowerOf2(F32 value, F32 exponent) {
  return _mm512_scalef_ps(value, exponent);
}
// Exponent in [-1022, 0].
[[gnu::always_inline]] inline F64 ScaleByPowerOf2(F64 value, F64 exponent) {
  return _mm512_scalef_pd(value, exponent);
}
// 0 in the lanes where x < limit, else value.
[[gnu::always_inline]] inline F64 ZeroWhereBelow(F64 x, F64 limit, F64 value) {
  return _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(x, limit, _CMP_NLT_UQ), value);
}
// `other` in the lanes outside [begin, end), else value.
[[gnu::always_inline]] inline F32 ReplaceOutside(F32 value, int begin, int end,
                                                 F32 other) {
  const __m512i lane =
      _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __mmask16 inside =
      _mm512_cmpge_epi32_mask(lane, _mm512_set1_epi32(begin)) &
      _mm512_cmplt_epi32_mask(lane, _mm512_set1_epi32(end));
  return _mm512_mask_mov_ps(other, inside, value);
}
[[gnu::always_inline]] inline bool AnyNan(F32 value) {
  return _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q) != 0;
}
// Over the lanes, by halves: (lane i) op (lane i + kLanes / 2), and so on.
[[gnu::always_inline]] inline float ReduceMax(F32 value) {
  const __m256 half = _mm256_max_ps(
      _mm512_castps512_ps256(value),
      _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(value), 1)));
  __m128 quarter =
      _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  quarter = _mm_max_ps(quarter, _mm_movehl_ps(quarter, quarter));
  quarter = _mm_max_ss(quarter, _mm_movehdup_ps(quarter));
  return _mm_cvtss_f32(quarter);
}
[[gnu::always_inline]] inline float ReduceSum(F32 value) {
  const __m256 half = _mm256_add_ps(
      _mm512_castps512_ps256(value),
      _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(value), 1)));
  __m128 quarter =
      _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  quarter = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
  quarter = _mm_add_ss(quarter, _mm_movehdup_ps(quarter));
  return _mm_cvtss_f32(quarter);
}

// ---- 32-bit words, for random numbers
using U32 = __m512i;
[[gnu::always_inline]] inline U32 SetU32(uint32_t value) {
  return _mm512_set1_epi32(static_cast<int>(value));
}
[[gnu::always_inline]] inline U32 LoadU32(const uint32_t* from) {
  return _mm512_loadu_si512(from);
}
[[gnu::always_inline]] inline U32 AddU32(U32 a, U32 b) {
  return _mm512_add_epi32(a, b);
}
[[gnu::always_inline]] inline U32 XorU32(U32 a, U32 b) {
  return _mm512_xor_si512(a, b);
}
// The 64-bit products of the words in even lanes; odd lanes do not matter.
[[gnu::always_inline]] inline U32 MultiplyEven(U32 a, U32 b) {
  return _mm512_mul_epu32(a, b);
}
// The words of odd lanes, in the even lanes before them.
[[gnu::always_inline]] inline U32 OddToEven(U32 words) {
  return _mm512_srli_epi64(words, 32);
}
// Even lanes of `even`, and even lanes of `odd` in the lanes behind them.
[[gnu::always_inline]] inline U32 JoinEven(U32 even, U32 odd) {
  return _mm512_mask_mov_epi32(even, __mmask16{0xaaaa},
                               _mm512_slli_epi64(odd, 32));
}
// 4 x 4 words within each 128 bits: row i becomes column i.
[[gnu::always_inline]] inline void TransposeQuads(U32 (&rows)[4]) {
  const __m512i a = _mm512_unpacklo_epi32(rows[0], rows[1]);
  const __m512i b = _mm512_unpackhi_epi32(rows[0], rows[1]);
  const __m512i c = _mm512_unpacklo_epi32(rows[2], rows[3]);
  const __m512i d = _mm512_unpackhi_epi32(rows[2], rows[3]);
  rows[0] = _mm512_unpacklo_epi64(a, c);
  rows[1] = _mm512_unpackhi_epi64(a, c);
  rows[2] = _mm512_unpacklo_epi64(b, d);
  rows[3] = _mm512_unpackhi_epi64(b, d);
}
// 0 in the lanes where word < limit, else value.
[[gnu::always_inline]] inline F32 ZeroWhereLess(U32 word, U32 limit,
                                                F32 value) {
  return _mm512_maskz_mov_ps(_mm512_cmpge_epu32_mask(word, limit), value);
}
[[gnu::always_inline]] inline F32 Sqrt(F32 value) {
  return _mm512_sqrt_ps(value);
}

// to[c][r] = rows[r][c] for kLanes rows and kLanes columns; rows of `to` are
// `stride` floats apart.
[[gnu::always_inline]] inline void StoreTransposed(const F32 (&rows)[kLanes],
                                                   float* to, int64_t stride) {
  __m512d pairs[kLanes];
  for (int i = 0; i < kLanes; i += 4) {
    // Within 128 bits: 4 rows x 4 columns.
    const __m512 a = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    const __m512 b = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    const __m512 c = _mm512_unpacklo_ps(rows[i + 2], rows[i + 3]);
    const __m512 d = _mm512_unpackhi_ps(rows[i + 2], rows[i + 3]);
    pairs[i] = _mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(c));
    pairs[i + 1] = _mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(c));
    pairs[i + 2] = _mm512_unpacklo_pd(_mm512_castps_pd(b), _mm512_castps_pd(d));
    pairs[i + 3] = _mm512_unpackhi_pd(_mm512_castps_pd(b), _mm512_castps_pd(d));
  }
  for (int i = 0; i < 4; ++i) {
    // 128-bit parts: part p of register i + 4 g holds column i + 4 p of rows
    // 4 g .. 4 g + 3.
    const __m512 g0 = _mm512_castpd_ps(pairs[i]);
    const __m512 g1 = _mm512_castpd_ps(pairs[i + 4]);
    const __m512 g2 = _mm512_castpd_ps(pairs[i + 8]);
    const __m512 g3 = _mm512_castpd_ps(pairs[i + 12]);
    const __m512 low01 = _mm512_shuffle_f32x4(g0, g1, 0x44);
    const __m512 high01 = _mm512_shuffle_f32x4(g0, g1, 0xee);
    const __m512 low23 = _mm512_shuffle_f32x4(g2, g3, 0x44);
    const __m512 high23 = _mm512_shuffle_f32x4(g2, g3, 0xee);
    Store(to + i * stride, _mm512_shuffle_f32x4(low01, low23, 0x88));
    Store(to + (i + 4) * stride, _mm512_shuffle_f32x4(low01, low23, 0xdd));
    Store(to + (i + 8) * stride, _mm512_shuffle_f32x4(high01, high23, 0x88));
    Store(to + (i + 12) * stride, _mm512_shuffle_f32x4(high01, high23, 0xdd));
  }
}

}  // namespace avx512
}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_VECTOR_AVX512_H_
