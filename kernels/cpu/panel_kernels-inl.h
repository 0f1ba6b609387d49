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

void FillBf16(const ColumnSource& source, int64_t steps, std::byte* to) {
  PackColumnsPairs(source, kTile, steps, reinterpret_cast<float*>(to));
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

constexpr PanelKernels MakePanelKernels() {
  return {.fill_f32 = &FillF32,
          .fill_bf16 = &FillBf16,
          .transpose_f32 = &TransposeF32,
          .transpose_bf16 = &TransposeBf16};
}

}  // namespace
}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_PANEL_KERNELS_INL_H_
