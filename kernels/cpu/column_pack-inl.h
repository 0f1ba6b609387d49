// Columns of a row-major matrix laid out step by step, for rows of A
// (gemm_simd-inl.h) and for panels (panel_kernels-inl.h). Included only by
// files that are compiled per instruction set; everything is in an unnamed
// namespace.
#ifndef OCTET_KERNELS_CPU_COLUMN_PACK_INL_H_
#define OCTET_KERNELS_CPU_COLUMN_PACK_INL_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/panel_kernels.h"
#include "kernels/cpu/vector_math.h"

namespace octet::cpu {
namespace {

// `count` elements from `from`, at most kLanes; the others are zero.
template <typename Element>
[[gnu::always_inline]] inline F32 LoadOrZero(const Element* from,
                                             int64_t count) {
  return count > 0 ? LoadUpTo(from, count) : Set(0.0f);
}

// Pairs of bf16 from two vectors of widened bf16, `even` in the lower half.
[[gnu::always_inline]] inline F32 JoinPairs(F32 even, F32 odd) {
#if defined(__AVX512F__)
  return _mm512_castsi512_ps(
      _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(even), 16),
                      _mm512_castps_si512(odd)));
#else
  return _mm256_castsi256_ps(
      _mm256_or_si256(_mm256_srli_epi32(_mm256_castps_si256(even), 16),
                      _mm256_castps_si256(odd)));
#endif
}

// [step][width] f32.
[[gnu::always_inline]] inline void PackColumnsF32(const ColumnSource& source,
                                                  int width, int64_t steps,
                                                  float* to) {
  const float* row = static_cast<const float*>(source.data);
  for (int64_t step = 0; step < steps; ++step, to += width) {
    const int64_t columns = step < source.rows ? source.columns : 0;
    for (int c = 0; c < width; c += kLanes) {
      StoreUpTo(to + c, LoadOrZero(row + c, columns - c), width - c);
    }
    if (columns > 0) row += source.stride;
  }
}

// Calls store(step, column, even, odd) with the elements of rows 2 step and 2
// step + 1, widened.
template <typename Store>
[[gnu::always_inline]] inline void ForEachPair(const ColumnSource& source,
                                               int width, int64_t steps,
                                               Store store) {
  const uint16_t* row = static_cast<const uint16_t*>(source.data);
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t even = 2 * step < source.rows ? source.columns : 0;
    const int64_t odd = 2 * step + 1 < source.rows ? source.columns : 0;
    const uint16_t* next = odd > 0 ? row + source.stride : row;
    for (int c = 0; c < width; c += kLanes) {
      store(step, c, LoadOrZero(row + c, even - c),
            LoadOrZero(next + c, odd - c));
    }
    if (odd > 0) row = next + source.stride;
  }
}

// [step][width] pairs of bf16.
[[gnu::always_inline]] inline void PackColumnsPairs(const ColumnSource& source,
                                                    int width, int64_t steps,
                                                    float* to) {
  ForEachPair(
      source, width, steps, [=](int64_t step, int c, F32 even, F32 odd) {
        StoreUpTo(to + step * width + c, JoinPairs(even, odd), width - c);
      });
}

// [step][2][width] f32.
[[gnu::always_inline]] inline void PackColumnsWiden(const ColumnSource& source,
                                                    int width, int64_t steps,
                                                    float* to) {
  ForEachPair(source, width, steps,
              [=](int64_t step, int c, F32 even, F32 odd) {
                float* at = to + 2 * step * width + c;
                StoreUpTo(at, even, width - c);
                StoreUpTo(at + width, odd, width - c);
              });
}

}  // namespace
}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_COLUMN_PACK_INL_H_
