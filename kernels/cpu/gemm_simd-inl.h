// The block products of the vector instruction sets, and the loops around them,
// written once over vector_math.h. Included only by gemm_avx2.cc,
// gemm_avx512.cc and gemm_avx512_bf16.cc; everything is in an unnamed
// namespace, since those files are compiled for different processors.
//
// A is laid out as row_pack-inl.h says. An output's sum is one chain of fused
// multiply-adds in rising k.
#ifndef OCTET_KERNELS_CPU_GEMM_SIMD_INL_H_
#define OCTET_KERNELS_CPU_GEMM_SIMD_INL_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/row_pack-inl.h"
#include "kernels/cpu/vector_math.h"

namespace octet::cpu {
namespace {

constexpr int kColumns = 32;       // of a panel
constexpr int kPanelStride = 128;  // bytes of a step of a panel
constexpr int kVectorBytes = kLanes * 4;
constexpr int kPanelVectors = kColumns / kLanes;
// 24 sums of 32 registers (AVX-512), 12 of 16 (AVX2).
constexpr int kMaxRows = kLanes == 16 ? 12 : 6;
constexpr int kMaxWholePanelSums = kLanes == 16 ? 24 : 8;

template <int kRows, int kVectors>
using Sums = F32[kRows][kVectors];

[[gnu::always_inline]] inline F32 Broadcast(const uint32_t* word) {
  float value;
  __builtin_memcpy(&value, word, 4);
  return Set(value);
}

// sums[r][v] += a[r] * w[v].
template <int kRows, int kVectors>
[[gnu::always_inline]] inline void OuterProduct(const uint32_t* a,
                                                const F32 (&w)[kVectors],
                                                Sums<kRows, kVectors>& sums) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const F32 x = Broadcast(a + r);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[r][v] = Fma(x, w[v], sums[r][v]);
  }
}

// x, W f32: one input a step.
struct F32Op {
  static constexpr int kWords = 1;

  template <int kRows, int kVectors>
  [[gnu::always_inline]] static inline void Step(const uint32_t* a,
                                                 const std::byte* b,
                                                 Sums<kRows, kVectors>& sums) {
    F32 w[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      w[v] = Load(reinterpret_cast<const float*>(b + v * kVectorBytes));
    }
    OuterProduct<kRows, kVectors>(a, w, sums);
  }
};

// The even and the odd elements of kLanes pairs of bf16, widened to f32.
[[gnu::always_inline]] inline F32 LoadEvenBF16(const std::byte* pairs) {
#if defined(__AVX512F__)
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_load_si512(pairs), 16));
#else
  const auto* from = reinterpret_cast<const __m256i*>(pairs);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_load_si256(from), 16));
#endif
}
[[gnu::always_inline]] inline F32 LoadOddBF16(const std::byte* pairs) {
  constexpr int kUpperHalf = -65536;
#if defined(__AVX512F__)
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_load_si512(pairs),
                                              _mm512_set1_epi32(kUpperHalf)));
#else
  const auto* from = reinterpret_cast<const __m256i*>(pairs);
  return _mm256_castsi256_ps(
      _mm256_and_si256(_mm256_load_si256(from), _mm256_set1_epi32(kUpperHalf)));
#endif
}

// x, W bf16, widened to f32 (exactly): A holds both inputs of a step as f32.
struct WidenOp {
  static constexpr int kWords = 2;

  template <int kRows, int kVectors>
  [[gnu::always_inline]] static inline void Step(const uint32_t* a,
                                                 const std::byte* b,
                                                 Sums<kRows, kVectors>& sums) {
    F32 w[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      w[v] = LoadEvenBF16(b + v * kVectorBytes);
    OuterProduct<kRows, kVectors>(a, w, sums);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) w[v] = LoadOddBF16(b + v * kVectorBytes);
    OuterProduct<kRows, kVectors>(a + kRows, w, sums);
  }
};

// kRows rows by kVectors vectors of columns, from column `column` on.
template <class Op, int kRows, int kVectors>
[[gnu::always_inline]] inline void MultiplyColumns(const BlockProduct& product,
                                                   int column,
                                                   int64_t prefetch_stride) {
  Sums<kRows, kVectors> sums;
  float* c = product.c + column;
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] =
          product.accumulate ? Load(c + r * kColumns + v * kLanes) : Set(0.0f);
    }
  }
  const uint32_t* a = reinterpret_cast<const uint32_t*>(product.a);
  const std::byte* b = product.b + column * 4;
  const char* ahead = reinterpret_cast<const char*>(product.prefetch);
  for (int64_t step = 0; step < product.steps; ++step) {
    _mm_prefetch(ahead, _MM_HINT_T0);
    _mm_prefetch(ahead + 64, _MM_HINT_T0);
    Op::template Step<kRows, kVectors>(a, b, sums);
    a += kRows * Op::kWords;
    b += kPanelStride;
    ahead += prefetch_stride;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      Store(c + r * kColumns + v * kLanes, sums[r][v]);
    }
  }
}

// All 32 columns: at once where the sums fit the registers.
template <class Op, int kRows>
void MultiplyRows(const BlockProduct& product) {
  constexpr int kVectors =
      kRows * kPanelVectors <= kMaxWholePanelSums ? kPanelVectors : 2;
  int64_t stride = product.prefetch_stride;
  for (int v = 0; v < kPanelVectors; v += kVectors) {
    MultiplyColumns<Op, kRows, kVectors>(product, v * kLanes, stride);
    stride = 0;
  }
}

using RowsFunction = void (*)(const BlockProduct&);

template <class Op, int kRows>
constexpr RowsFunction RowsOrNull() {
  if constexpr (kRows <= kMaxRows) {
    return &MultiplyRows<Op, kRows>;
  } else {
    return nullptr;
  }
}

template <class Op>
void Multiply(const BlockProduct& product) {
  static constexpr RowsFunction kByRows[] = {nullptr,
                                             RowsOrNull<Op, 1>(),
                                             RowsOrNull<Op, 2>(),
                                             RowsOrNull<Op, 3>(),
                                             RowsOrNull<Op, 4>(),
                                             RowsOrNull<Op, 5>(),
                                             RowsOrNull<Op, 6>(),
                                             RowsOrNull<Op, 7>(),
                                             RowsOrNull<Op, 8>(),
                                             RowsOrNull<Op, 9>(),
                                             RowsOrNull<Op, 10>(),
                                             RowsOrNull<Op, 11>(),
                                             RowsOrNull<Op, 12>(),
                                             RowsOrNull<Op, 13>(),
                                             RowsOrNull<Op, 14>()};
  kByRows[product.rows](product);
}

inline void Nothing() {}

// ---- elementwise

inline void SiluMul(float* gate, const float* up, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    Store(gate + i, Silu(Load(gate + i)) * Load(up + i));
  }
}

inline void ToBf16(const float* from, BF16* to, int64_t count) {
  uint16_t* bits = reinterpret_cast<uint16_t*>(to);
  for (int64_t i = 0; i < count; i += kLanes) {
    StoreBF16(bits + i, Load(from + i));
  }
}

inline void Stream(const float* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
#if defined(__AVX512F__)
    _mm512_stream_ps(to + i, Load(from + i));
#else
    _mm256_stream_ps(to + i, Load(from + i));
#endif
  }
}

inline void StreamEnd() { _mm_sfence(); }

template <class Op>
constexpr GemmKernels MakeKernels(
    const char* name, decltype(GemmKernels::pack_rows) pack_rows,
    decltype(GemmKernels::pack_columns) pack_columns) {
  return GemmKernels{.name = name,
                     .max_rows = kMaxRows,
                     .one_pass_rows = kMaxWholePanelSums / kPanelVectors,
                     .row_quantum = 1,
                     .step_quantum = 1,
                     .a_step_bytes = 4 * Op::kWords,
                     .pack_rows = pack_rows,
                     .pack_columns = pack_columns,
                     .begin = &Nothing,
                     .end = &Nothing,
                     .multiply = &Multiply<Op>};
}

}  // namespace
}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_GEMM_SIMD_INL_H_
