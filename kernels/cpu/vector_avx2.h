// The AVX2 side of kernels/cpu/vector_math.h, which says what the functions
// mean. Include that file.
#ifndef OCTET_KERNELS_CPU_VECTOR_AVX2_H_
#define OCTET_KERNELS_CPU_VECTOR_AVX2_H_

#include <immintrin.h>

#include <cstdint>

namespace octet::cpu {
inline namespace avx2 {

using F32 = __m256;
using F64 = __m256d;
inline constexpr int kLanes = 8;     // of F32
inline constexpr int kLanesF64 = 4;  // of F64

[[gnu::always_inline]] inline F32 Set(float value) {
  return _mm256_set1_ps(value);
}
[[gnu::always_inline]] inline F64 Set(double value) {
  return _mm256_set1_pd(value);
}
[[gnu::always_inline]] inline F32 Load(const float* from) {
  return _mm256_loadu_ps(from);
}
[[gnu::always_inline]] inline void Store(float* to, F32 value) {
  _mm256_storeu_ps(to, value);
}
[[gnu::always_inline]] inline void Store(double* to, F64 value) {
  _mm256_storeu_pd(to, value);
}
[[gnu::always_inline]] inline __m256i LaneIds() {
  return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
}
[[gnu::always_inline]] inline __m256i FirstLanes(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                            LaneIds());
}
[[gnu::always_inline]] inline F32 LoadPartial(const float* from,
                                              int64_t count) {
  return _mm256_maskload_ps(from, FirstLanes(count));
}
[[gnu::always_inline]] inline void StorePartial(float* to, F32 value,
                                                int64_t count) {
  _mm256_maskstore_ps(to, FirstLanes(count), value);
}
[[gnu::always_inline]] inline F32 WidenBF16(__m128i bits) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
[[gnu::always_inline]] inline F32 LoadBF16(const uint16_t* from) {
  return WidenBF16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
[[gnu::always_inline]] inline F32 LoadBF16Partial(const uint16_t* from,
                                                  int64_t count) {
  alignas(16) uint16_t padded[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = from[i];
  return LoadBF16(padded);
}
[[gnu::always_inline]] inline __m128i RoundToBF16(F32 value) {
  const __m256i bits = _mm256_castps_si256(value);
  const __m256i odd =
      _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan =
      _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
  const __m256i upper =
      _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  // Packing works within 128 bits; quarters 0 and 2 hold the result.
  const __m256i packed = _mm256_packus_epi32(upper, upper);
  return _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
}
[[gnu::always_inline]] inline void StoreBF16(uint16_t* to, F32 value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), RoundToBF16(value));
}
[[gnu::always_inline]] inline void StoreBF16Partial(uint16_t* to, F32 value,
                                                    int64_t count) {
  alignas(16) uint16_t padded[kLanes];
  StoreBF16(padded, value);
  for (int64_t i = 0; i < count; ++i) to[i] = padded[i];
}
// 2 kLanes values, rounded, side by side.
[[gnu::always_inline]] inline F32 JoinBF16(F32 first, F32 second) {
  return _mm256_castsi256_ps(
      _mm256_set_m128i(RoundToBF16(second), RoundToBF16(first)));
}
// kLanesF64 floats, widened.
[[gnu::always_inline]] inline F64 LoadAsF64(const float* from) {
  return _mm256_cvtps_pd(_mm_loadu_ps(from));
}

[[gnu::always_inline]] inline F32 Fma(F32 a, F32 b, F32 c) {
  return _mm256_fmadd_ps(a, b, c);
}
[[gnu::always_inline]] inline F64 Fma(F64 a, F64 b, F64 c) {
  return _mm256_fmadd_pd(a, b, c);
}
// The second operand when either is NaN.
[[gnu::always_inline]] inline F32 Max(F32 a, F32 b) {
  return _mm256_max_ps(a, b);
}
[[gnu::always_inline]] inline F64 Max(F64 a, F64 b) {
  return _mm256_max_pd(a, b);
}
[[gnu::always_inline]] inline F32 Min(F32 a, F32 b) {
  return _mm256_min_ps(a, b);
}
[[gnu::always_inline]] inline F32 RoundToNearest(F32 value) {
  return _mm256_round_ps(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
[[gnu::always_inline]] inline F64 RoundToNearest(F64 value) {
  return _mm256_round_pd(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
[[gnu::always_inline]] inline F32 PowerOf2(__m256i exponent) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(
      _mm256_add_epi32(exponent, _mm256_set1_epi32(127)), 23));
}
// value * 2^exponent, rounded once: the first product is exact for values near
// 1. exponent is a whole number in [-151, 129].
[[gnu::always_inline]] inline F32 ScaleByPowerOf2(F32 value, F32 exponent) {
  const __m256i whole = _mm256_cvtps_epi32(exponent);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  return value * PowerOf2(half) * PowerOf2(_mm256_sub_epi32(whole, half));
}
// Exponent in [-1022, 0].
[[gnu::always_inline]] inline F64 ScaleByPowerOf2(F64 value, F64 exponent) {
  const __m256i whole = _mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(exponent));
  return value * _mm256_castsi256_pd(_mm256_slli_epi64(
                     _mm256_add_epi64(whole, _mm256_set1_epi64x(1023)), 52));
}
// 0 in the lanes where x < limit, else value.
[[gnu::always_inline]] inline F64 ZeroWhereBelow(F64 x, F64 limit, F64 value) {
  return _mm256_and_pd(_mm256_cmp_pd(x, limit, _CMP_NLT_UQ), value);
}
// `other` in the lanes outside [begin, end), else value.
[[gnu::always_inline]] inline F32 ReplaceOutside(F32 value, int begin, int end,
                                                 F32 other) {
  const __m256i inside =
      _mm256_andnot_si256(FirstLanes(begin), FirstLanes(end));
  return _mm256_blendv_ps(other, value, _mm256_castsi256_ps(inside));
}
[[gnu::always_inline]] inline bool AnyNan(F32 value) {
  return _mm256_movemask_ps(_mm256_cmp_ps(value, value, _CMP_UNORD_Q)) != 0;
}
// Over the lanes, by halves: (lane i) op (lane i + kLanes / 2), and so on.
[[gnu::always_inline]] inline float ReduceMax(F32 value) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(value),
                           _mm256_extractf128_ps(value, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  half = _mm_max_ss(half, _mm_movehdup_ps(half));
  return _mm_cvtss_f32(half);
}
[[gnu::always_inline]] inline float ReduceSum(F32 value) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(value),
                           _mm256_extractf128_ps(value, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  half = _mm_add_ss(half, _mm_movehdup_ps(half));
  return _mm_cvtss_f32(half);
}

// ---- 32-bit words, for random numbers
using U32 = __m256i;
[[gnu::always_inline]] inline U32 SetU32(uint32_t value) {
  return _mm256_set1_epi32(static_cast<int>(value));
}
[[gnu::always_inline]] inline U32 LoadU32(const uint32_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
[[gnu::always_inline]] inline U32 AddU32(U32 a, U32 b) {
  return _mm256_add_epi32(a, b);
}
[[gnu::always_inline]] inline U32 XorU32(U32 a, U32 b) {
  return _mm256_xor_si256(a, b);
}
// The 64-bit products of the words in even lanes; odd lanes do not matter.
[[gnu::always_inline]] inline U32 MultiplyEven(U32 a, U32 b) {
  return _mm256_mul_epu32(a, b);
}
// The words of odd lanes, in the even lanes before them.
[[gnu::always_inline]] inline U32 OddToEven(U32 words) {
  return _mm256_srli_epi64(words, 32);
}
// Even lanes of `even`, and even lanes of `odd` in the lanes behind them.
[[gnu::always_inline]] inline U32 JoinEven(U32 even, U32 odd) {
  return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}
// 4 x 4 words within each 128 bits: row i becomes column i.
[[gnu::always_inline]] inline void TransposeQuads(U32 (&rows)[4]) {
  const __m256i a = _mm256_unpacklo_epi32(rows[0], rows[1]);
  const __m256i b = _mm256_unpackhi_epi32(rows[0], rows[1]);
  const __m256i c = _mm256_unpacklo_epi32(rows[2], rows[3]);
  const __m256i d = _mm256_unpackhi_epi32(rows[2], rows[3]);
  rows[0] = _mm256_unpacklo_epi64(a, c);
  rows[1] = _mm256_unpackhi_epi64(a, c);
  rows[2] = _mm256_unpacklo_epi64(b, d);
  rows[3] = _mm256_unpackhi_epi64(b, d);
}
// 0 in the lanes where word < limit, else value.
[[gnu::always_inline]] inline F32 ZeroWhereLess(U32 word, U32 limit,
                                                F32 value) {
  const __m256i keep = _mm256_cmpeq_epi32(_mm256_max_epu32(word, limit), word);
  return _mm256_and_ps(_mm256_castsi256_ps(keep), value);
}
[[gnu::always_inline]] inline F32 Sqrt(F32 value) {
  return _mm256_sqrt_ps(value);
}

// to[c][r] = rows[r][c] for kLanes rows and kLanes columns; rows of `to` are
// `stride` floats apart.
[[gnu::always_inline]] inline void StoreTransposed(const F32 (&rows)[kLanes],
                                                   float* to, int64_t stride) {
  __m256d pairs[kLanes];
  for (int i = 0; i < kLanes; i += 4) {
    // Within 128 bits: 4 rows x 4 columns.
    const __m256 a = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    const __m256 b = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
    const __m256 c = _mm256_unpacklo_ps(rows[i + 2], rows[i + 3]);
    const __m256 d = _mm256_unpackhi_ps(rows[i + 2], rows[i + 3]);
    pairs[i] = _mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(c));
    pairs[i + 1] = _mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(c));
    pairs[i + 2] = _mm256_unpacklo_pd(_mm256_castps_pd(b), _mm256_castps_pd(d));
    pairs[i + 3] = _mm256_unpackhi_pd(_mm256_castps_pd(b), _mm256_castps_pd(d));
  }
  for (int i = 0; i < 4; ++i) {
    const __m256 g0 = _mm256_castpd_ps(pairs[i]);
    const __m256 g1 = _mm256_castpd_ps(pairs[i + 4]);
    Store(to + i * stride, _mm256_permute2f128_ps(g0, g1, 0x20));
    Store(to + (i + 4) * stride, _mm256_permute2f128_ps(g0, g1, 0x31));
  }
}

}  // namespace avx2
}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_VECTOR_AVX2_H_
