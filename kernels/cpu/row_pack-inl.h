// Rows of A laid out for the vector block products (gemm_simd-inl.h): [step]
// [rows] in words of 4 bytes (f32 inputs, or pairs of bf16), or [step][2][rows]
// where bf16 is widened; zero beyond k. Included only by files that are
// compiled per instruction set; everything is in an unnamed namespace.
#ifndef OCTET_KERNELS_CPU_ROW_PACK_INL_H_
#define OCTET_KERNELS_CPU_ROW_PACK_INL_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/column_pack-inl.h"
#include "kernels/cpu/panel_kernels.h"
#include "kernels/cpu/vector_math.h"

namespace octet::cpu {
namespace {

// Writes the words of `rows` rows (at most kLanes) to to[word][row]. The first
// `whole` words of a row come kLanes at a time from vector(row, word), the
// others from word(row, word).
template <typename Vector, typename Word>
[[gnu::always_inline]] inline void PackWords(int rows, int64_t words,
                                             int64_t whole, float* to,
                                             Vector vector, Word word) {
  F32 lanes[kLanes];
  alignas(64) float columns[kLanes * kLanes];
  for (int r = rows; r < kLanes; ++r) lanes[r] = Set(0.0f);
  int64_t i = 0;
  for (; i + kLanes <= whole; i += kLanes, to += kLanes * rows) {
    for (int r = 0; r < rows; ++r) lanes[r] = vector(r, i);
    StoreTransposed(lanes, columns, kLanes);
    // What a store writes behind its rows, the next one writes over.
    int c = 0;
    for (; c * rows + kLanes <= kLanes * rows; ++c) {
      Store(to + c * rows, Load(columns + c * kLanes));
    }
    for (; c < kLanes; ++c) {
      StoreUpTo(to + c * rows, Load(columns + c * kLanes), rows);
    }
  }
  for (; i < words; ++i, to += rows) {
    for (int r = 0; r < rows; ++r) {
      const uint32_t bits = word(r, i);
      __builtin_memcpy(to + r, &bits, sizeof(bits));
    }
  }
}

inline void PackRowsF32(const void* x, int rows, int64_t k, int64_t steps,
                        std::byte* a) {
  const float* from = static_cast<const float*>(x);
  PackWords(
      rows, steps, k, reinterpret_cast<float*>(a),
      [=](int64_t row, int64_t i) { return Load(from + row * k + i); },
      [=](int64_t row, int64_t i) {
        uint32_t bits = 0;
        if (i < k) __builtin_memcpy(&bits, from + row * k + i, sizeof(bits));
        return bits;
      });
}

inline void PackRowsWiden(const void* x, int rows, int64_t k, int64_t steps,
                          std::byte* a) {
  const uint16_t* from = static_cast<const uint16_t*>(x);
  PackWords(
      rows, 2 * steps, k, reinterpret_cast<float*>(a),
      [=](int64_t row, int64_t i) { return LoadBF16(from + row * k + i); },
      [=](int64_t row, int64_t i) {
        return i < k ? static_cast<uint32_t>(from[row * k + i]) << 16 : 0;
      });
}

inline void PackRowsPairs(const void* x, int rows, int64_t k, int64_t steps,
                          std::byte* a) {
  const uint16_t* from = static_cast<const uint16_t*>(x);
  PackWords(
      rows, steps, k / 2, reinterpret_cast<float*>(a),
      [=](int64_t row, int64_t i) {
        return Load(reinterpret_cast<const float*>(from + row * k + 2 * i));
      },
      [=](int64_t row, int64_t i) {
        const uint16_t* pair = from + row * k + 2 * i;
        uint32_t bits = 0;
        if (2 * i + 1 < k) {
          __builtin_memcpy(&bits, pair, sizeof(bits));
        } else if (2 * i < k) {
          bits = *pair;
        }
        return bits;
      });
}

// The same from columns: the rows of A are source.columns.
inline void ColumnsF32(const ColumnSource& source, int64_t steps,
                       std::byte* a) {
  PackColumnsF32(source, source.columns, steps, reinterpret_cast<float*>(a));
}
inline void ColumnsWiden(const ColumnSource& source, int64_t steps,
                         std::byte* a) {
  PackColumnsWiden(source, source.columns, steps, reinterpret_cast<float*>(a));
}
inline void ColumnsPairs(const ColumnSource& source, int64_t steps,
                         std::byte* a) {
  PackColumnsPairs(source, source.columns, steps, reinterpret_cast<float*>(a));
}

}  // namespace
}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_ROW_PACK_INL_H_
