// The bodies of PanelKernels over vector_math.h. Included only by panel_avx2.cc
// and panel_avx512.cc; everything is in an unnamed namespace.
#ifndef OCTET_KERNELS_CPU_PANEL_KERNELS_INL_H_
#define OCTET_KERNELS_CPU_PANEL_KERNELS_INL_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/column_pack-inl.h"
#include "kernels/cpu/panel_kernels.h"
#include "kernels/cpu/vector_math.h"

namespace octet::cpu {
namespace {

constexpr int kTile = 32;         // outputs and inputs
constexpr int kStep = 128;        // bytes
constexpr int kPairUnit = 8;      // bytes: 2 inputs of 2 outputs, bf16
constexpr int kPairSteps = 16;    // of a tile
constexpr int kUnitsPerRow = 16;  // of a step

void FillF32(const ColumnSource& source, int64_t steps, std::byte* to) {
  PackColumnsF32(source, kTile, steps, reinterpret_cast<float*>(to));
}

#if defined(__AVX512F__)
// For a permutation of two vectors of 32: elements 0, 32, 1, 33, ... 15, 47.
[[gnu::always_inline]] inline __m512i FirstOfPairs() {
  const __m512i lanes =
      _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm512_or_si512(
      lanes,
      _mm512_slli_epi32(_mm512_add_epi32(lanes, _mm512_set1_epi32(kTile)), 16));
}
#endif

void FillBf16(const ColumnSource& source, int64_t steps, std::byte* to) {
#if defined(__AVX512F__)
  // Whole pairs of whole rows, 32 columns at once.
  int64_t whole = 0;
  if (source.columns == kTile) {
    whole = source.rows / 2 < steps ? source.rows / 2 : steps;
    if (whole < 0) whole = 0;
  }
  const __m512i first = FirstOfPairs();
  const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(kTile / 2));
  const uint16_t* row = static_cast<const uint16_t*>(source.data);
  for (int64_t step = 0; step < whole; ++step, to += kStep) {
    const __m512i even = _mm512_loadu_si512(row);
    const __m512i odd = _mm512_loadu_si512(row + source.stride);
    _mm512_store_si512(to, _mm512_permutex2var_epi16(even, first, odd));
    _mm512_store_si512(to + kStep / 2,
                       _mm512_permutex2var_epi16(even, second, odd));
    row += 2 * source.stride;
  }
  ColumnSource rest = source;
  rest.data = row;
  rest.rows -= 2 * whole;
  PackColumnsPairs(rest, kTile, steps - whole, reinterpret_cast<float*>(to));
#else
  PackColumnsPairs(source, kTile, steps, reinterpret_cast<float*>(to));
#endif
}

void TransposeF32(const std::byte* from, int inputs, std::byte* to) {
  const float* source = reinterpret_cast<const float*>(from);
  float* target = reinterpret_cast<float*>(to);
  for (int i = 0; i < kTile; i += kLanes) {
    for (int j = 0; j < kTile; j += kLanes) {
      F32 rows[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        rows[r] =
            i + r < inputs ? Load(source + (i + r) * kTile + j) : Set(0.0f);
      }
      StoreTransposed(rows, target + j * kTile + i, kTile);
    }
  }
}

// A step holds 16 units of (2 inputs) x (2 outputs); the tile is 16 x 16 of
// them. Units change places, and within a unit the second and third element.
void TransposeBf16(const std::byte* from, std::byte* to) {
  const __m256i swap =
      _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15,  //
                       0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
  for (int s = 0; s < kPairSteps; s += 4) {
    for (int t = 0; t < kUnitsPerRow; t += 4) {
      __m256i rows[4];
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        rows[r] = _mm256_shuffle_epi8(
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(
                from + (s + r) * kStep + t * kPairUnit)),
            swap);
      }
      const __m256i low01 = _mm256_unpacklo_epi64(rows[0], rows[1]);
      const __m256i high01 = _mm256_unpackhi_epi64(rows[0], rows[1]);
      const __m256i low23 = _mm256_unpacklo_epi64(rows[2], rows[3]);
      const __m256i high23 = _mm256_unpackhi_epi64(rows[2], rows[3]);
      const __m256i columns[4] = {
          _mm256_permute2x128_si256(low01, low23, 0x20),
          _mm256_permute2x128_si256(high01, high23, 0x20),
          _mm256_permute2x128_si256(low01, low23, 0x31),
          _mm256_permute2x128_si256(high01, high23, 0x31)};
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        _mm256_storeu_si256(
            reinterpret_cast<__m256i*>(to + (t + c) * kStep + s * kPairUnit),
            columns[c]);
      }
    }
  }
}

// kNf4Levels (kernels/quant/nf4.h), which holds inline functions of the
// standard library and so is not included here; nf4_matrix_test.cc compares.
alignas(64) constexpr float kLevels[16] = {-1.0f,
                                           -0.6961928009986877f,
                                           -0.5250730514526367f,
                                           -0.39491748809814453f,
                                           -0.28444138169288635f,
                                           -0.18477343022823334f,
                                           -0.09105003625154495f,
                                           0.0f,
                                           0.07958029955625534f,
                                           0.16093020141124725f,
                                           0.24611230194568634f,
                                           0.33791524171829224f,
                                           0.44070982933044434f,
                                           0.5626170039176941f,
                                           0.7229568362236023f,
                                           1.0f};

// The levels of kLanes bytes' lower and upper halves.
struct LevelPair {
  F32 even;
  F32 odd;
};
#if defined(__AVX512F__)
[[gnu::always_inline]] inline LevelPair LookUp(const uint8_t* codes) {
  const F32 levels = Load(kLevels);
  const __m512i index = _mm512_cvtepu8_epi32(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
  // Only the lower four bits of an index count.
  return {_mm512_permutexvar_ps(index, levels),
          _mm512_permutexvar_ps(_mm512_srli_epi32(index, 4), levels)};
}
#else
[[gnu::always_inline]] inline F32 LookUpIndex(__m256i index) {
  const F32 low = _mm256_permutevar8x32_ps(Load(kLevels), index);
  const F32 high = _mm256_permutevar8x32_ps(Load(kLevels + kLanes), index);
  // Bit 3 chooses the table: moved to where the blend looks.
  return _mm256_blendv_ps(low, high,
                          _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
}
[[gnu::always_inline]] inline LevelPair LookUp(const uint8_t* codes) {
  const __m256i index = _mm256_cvtepu8_epi32(
      _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
  return {LookUpIndex(index), LookUpIndex(_mm256_srli_epi32(index, 4))};
}
#endif

void DequantizeNf4F32(const uint8_t* codes, const float* absmax, int64_t pairs,
                      std::byte* to) {
  float* out = reinterpret_cast<float*>(to);
  for (int64_t pair = 0; pair < pairs; ++pair, codes += kTile) {
#pragma GCC unroll 4
    for (int c = 0; c < kTile; c += kLanes) {
      const LevelPair level = LookUp(codes + c);
      const F32 scale = Load(absmax + c);
      Store(out + 2 * pair * kTile + c, level.even * scale);
      Store(out + (2 * pair + 1) * kTile + c, level.odd * scale);
    }
  }
}

// Of finite values: the bits of the nearest bf16 in the upper half, ties to
// even, and in the lower half what is left.
#if defined(__AVX512F__)
[[gnu::always_inline]] inline F32 RoundUpperHalf(F32 value) {
  const __m512i bits = _mm512_castps_si512(value);
  const __m512i odd =
      _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  return _mm512_castsi512_ps(
      _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))));
}
[[gnu::always_inline]] inline F32 ClearLowerHalf(F32 value) {
  return _mm512_castsi512_ps(
      _mm512_and_si512(_mm512_castps_si512(value),
                       _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}
#else
[[gnu::always_inline]] inline F32 RoundUpperHalf(F32 value) {
  const __m256i bits = _mm256_castps_si256(value);
  const __m256i odd =
      _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  return _mm256_castsi256_ps(
      _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))));
}
[[gnu::always_inline]] inline F32 ClearLowerHalf(F32 value) {
  return _mm256_castsi256_ps(
      _mm256_and_si256(_mm256_castps_si256(value),
                       _mm256_set1_epi32(static_cast<int>(0xffff0000))));
}
#endif

void DequantizeNf4Bf16(const uint8_t* codes, const float* absmax, int64_t pairs,
                       std::byte* to) {
  float* out = reinterpret_cast<float*>(to);
  for (int64_t pair = 0; pair < pairs; ++pair, codes += kTile, out += kTile) {
#pragma GCC unroll 4
    for (int c = 0; c < kTile; c += kLanes) {
      const LevelPair level = LookUp(codes + c);
      const F32 scale = Load(absmax + c);
      Store(out + c,
            JoinPairs(RoundUpperHalf(level.even * scale),
                      ClearLowerHalf(RoundUpperHalf(level.odd * scale))));
    }
  }
}

constexpr PanelKernels MakePanelKernels() {
  return {.fill_f32 = &FillF32,
          .fill_bf16 = &FillBf16,
          .transpose_f32 = &TransposeF32,
          .transpose_bf16 = &TransposeBf16,
          .dequantize_nf4_f32 = &DequantizeNf4F32,
          .dequantize_nf4_bf16 = &DequantizeNf4Bf16};
}

}  // namespace
}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_PANEL_KERNELS_INL_H_
