// Products of small matrices that lie in the caches, for attention: included
// once per instruction set.
#ifndef OCTET_KERNELS_CPU_SMALL_MULTIPLY_INL_H_
#define OCTET_KERNELS_CPU_SMALL_MULTIPLY_INL_H_

#include <cstdint>

#include "kernels/cpu/vector_math.h"

namespace octet::cpu {
namespace {

// c[kRows, kVectors * kLanes] = (or +=) a[kRows, k] b[k, ...], where element
// (r, i) of a is at a[r a_stride + i], or with kTransposed at a[i a_stride +
// r].
template <bool kTransposed, int kRows, int kVectors>
[[gnu::always_inline]] inline void MultiplyBlock(
    const float* a, int64_t a_stride, const float* b, int64_t b_stride,
    int64_t k, bool accumulate, float* c, int64_t c_stride) {
  F32 sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = accumulate ? Load(c + r * c_stride + v * kLanes) : Set(0.0f);
    }
  }
  for (int64_t i = 0; i < k; ++i) {
    F32 row[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      row[v] = Load(b + i * b_stride + v * kLanes);
    }
    for (int r = 0; r < kRows; ++r) {
      const F32 factor =
          Set(kTransposed ? a[i * a_stride + r] : a[r * a_stride + i]);
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] = Fma(factor, row[v], sums[r][v]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      Store(c + r * c_stride + v * kLanes, sums[r][v]);
    }
  }
}

// All `n` columns (a multiple of kLanes) of kRows rows.
template <bool kTransposed, int kRows>
void MultiplyRows(const float* a, int64_t a_stride, const float* b,
                  int64_t b_stride, int64_t k, bool accumulate, float* c,
                  int64_t c_stride, int64_t n) {
  // As many sums as hide the latency of Fma and fit the registers.
  constexpr int kVectors = kRows <= 2 ? 4 : 2;
  int64_t j = 0;
  for (; j + kVectors * kLanes <= n; j += kVectors * kLanes) {
    MultiplyBlock<kTransposed, kRows, kVectors>(a, a_stride, b + j, b_stride, k,
                                                accumulate, c + j, c_stride);
  }
  for (; j < n; j += kLanes) {
    MultiplyBlock<kTransposed, kRows, 1>(a, a_stride, b + j, b_stride, k,
                                         accumulate, c + j, c_stride);
  }
}

// c[num_rows, n] = (or +=) a[num_rows, k] b[k, n], a stored as of
// MultiplyBlock. Every element's sum runs over k in order.
template <bool kTransposed>
void Multiply(const float* a, int64_t a_stride, const float* b,
              int64_t b_stride, int64_t k, bool accumulate, float* c,
              int64_t c_stride, int64_t n, int num_rows) {
  constexpr int kMostRows = kLanes == 16 ? 8 : 4;  // 32 or 16 registers
  const int64_t step = kTransposed ? 1 : a_stride;
  int r = 0;
  for (; r + kMostRows <= num_rows; r += kMostRows) {
    MultiplyRows<kTransposed, kMostRows>(a + r * step, a_stride, b, b_stride, k,
                                         accumulate, c + r * c_stride, c_stride,
                                         n);
  }
  if (r + 4 <= num_rows) {
    MultiplyRows<kTransposed, 4>(a + r * step, a_stride, b, b_stride, k,
                                 accumulate, c + r * c_stride, c_stride, n);
    r += 4;
  }
  for (; r + 2 <= num_rows; r += 2) {
    MultiplyRows<kTransposed, 2>(a + r * step, a_stride, b, b_stride, k,
                                 accumulate, c + r * c_stride, c_stride, n);
  }
  if (r < num_rows) {
    MultiplyRows<kTransposed, 1>(a + r * step, a_stride, b, b_stride, k,
                                 accumulate, c + r * c_stride, c_stride, n);
  }
}

}  // namespace
}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_SMALL_MULTIPLY_INL_H_
