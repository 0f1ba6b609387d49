// Bodies of the row-wise functions of kernels/cpu/vector_kernels.h, included
// once per instruction set.
#ifndef OCTET_KERNELS_CPU_ROW_KERNELS_INL_H_
#define OCTET_KERNELS_CPU_ROW_KERNELS_INL_H_

#include <cstdint>

#include "kernels/cpu/vector_math.h"

namespace octet::cpu {
namespace {

template <typename Out>  // float or uint16_t
void RmsNormRow(const float* x, const float* weight, float eps, int64_t n,
                Out* out) {
  // Four sums hide the latency of the addition.
  F32 sums[4] = {Set(0.0f), Set(0.0f), Set(0.0f), Set(0.0f)};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int j = 0; j < 4; ++j) {
      const F32 value = Load(x + i + j * kLanes);
      sums[j] = Fma(value, value, sums[j]);
    }
  }
  for (; i < n; i += kLanes) {
    const F32 value = LoadUpTo(x + i, n - i);
    sums[0] = Fma(value, value, sums[0]);
  }
  const float sum = ReduceSum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  const F32 scale =
      Set(1.0f / __builtin_sqrtf(sum / static_cast<float>(n) + eps));
  for (i = 0; i < n; i += kLanes) {
    StoreUpTo(out + i,
              LoadUpTo(x + i, n - i) * scale * LoadUpTo(weight + i, n - i),
              n - i);
  }
}

template <typename Out>
void RotateHead(const float* x, const float* cos, const float* sin,
                int64_t half, Out* out) {
  for (int64_t i = 0; i < half; i += kLanes) {
    const int64_t count = half - i;
    const F32 c = LoadUpTo(cos + i, count);
    const F32 s = LoadUpTo(sin + i, count);
    const F32 first = LoadUpTo(x + i, count);
    const F32 second = LoadUpTo(x + half + i, count);
    StoreUpTo(out + i, first * c - second * s, count);
    StoreUpTo(out + half + i, second * c + first * s, count);
  }
}

template <typename In, typename Out>
void ConvertRow(const In* x, int64_t n, Out* out) {
  for (int64_t i = 0; i < n; i += kLanes) {
    StoreUpTo(out + i, LoadUpTo(x + i, n - i), n - i);
  }
}

template <typename In>
void CombineRow(const In* const* rows, const float* weights, int num_rows,
                int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += kLanes) {
    F32 sum = Set(0.0f);
    for (int k = 0; k < num_rows; ++k) {
      sum = Fma(Set(weights[k]), LoadUpTo(rows[k] + i, n - i), sum);
    }
    StoreUpTo(out + i, LoadUpTo(out + i, n - i) + sum, n - i);
  }
}

void ExpRow(float* x, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    StoreUpTo(x + i, Exp(LoadUpTo(x + i, n - i)), n - i);
  }
}

float MaxOfRow(const float* x, int64_t n, bool* has_nan) {
  F32 max = Set(-__builtin_inff());
  bool nan = false;
  for (int64_t i = 0; i + kLanes <= n; i += kLanes) {
    const F32 value = Load(x + i);
    nan |= AnyNan(value);
    max = Max(max, value);
  }
  float result = ReduceMax(max);
  for (int64_t i = n / kLanes * kLanes; i < n; ++i) {
    nan |= x[i] != x[i];
    result = x[i] > result ? x[i] : result;
  }
  *has_nan = nan;
  return result;
}

constexpr int kExpChunk = 16;  // sums of SumExpRow

// e^((x[i] - max) * factor) of kExpChunk values.
[[gnu::always_inline]] inline void ExpChunk(const float* x, F64 max, F64 factor,
                                            F64 (&out)[kExpChunk / kLanesF64]) {
  for (int j = 0; j < kExpChunk / kLanesF64; ++j) {
    out[j] = ExpNonPositive((LoadAsF64(x + j * kLanesF64) - max) * factor);
  }
}

// A last, partial chunk continued with minus infinity, whose exponential is 0.
[[gnu::always_inline]] inline void PadChunk(const float* x, int64_t count,
                                            float (&padded)[kExpChunk]) {
  for (int j = 0; j < kExpChunk; ++j) {
    padded[j] = j < count ? x[j] : -__builtin_inff();
  }
}

double SumExpRow(const float* x, int64_t n, float max) {
  F64 sums[kExpChunk / kLanesF64];
  F64 chunk[kExpChunk / kLanesF64];
  for (F64& sum : sums) sum = Set(0.0);
  const F64 wide_max = Set(static_cast<double>(max));
  for (int64_t i = 0; i < n; i += kExpChunk) {
    float padded[kExpChunk];
    const float* from = x + i;
    if (n - i < kExpChunk) {
      PadChunk(x + i, n - i, padded);
      from = padded;
    }
    ExpChunk(from, wide_max, Set(1.0), chunk);
    for (int j = 0; j < kExpChunk / kLanesF64; ++j) {
      sums[j] = sums[j] + chunk[j];
    }
  }
  double lanes[kExpChunk];
  for (int j = 0; j < kExpChunk / kLanesF64; ++j) {
    Store(lanes + j * kLanesF64, sums[j]);
  }
  double total = 0.0;
  for (double lane : lanes) total += lane;
  return total;
}

void ExpScaledRow(const float* x, int64_t n, float max, double factor,
                  double* out) {
  F64 chunk[kExpChunk / kLanesF64];
  const F64 wide_max = Set(static_cast<double>(max));
  int64_t i = 0;
  for (; i + kExpChunk <= n; i += kExpChunk) {
    ExpChunk(x + i, wide_max, Set(factor), chunk);
    for (int j = 0; j < kExpChunk / kLanesF64; ++j) {
      Store(out + i + j * kLanesF64, chunk[j]);
    }
  }
  if (i == n) return;
  float padded[kExpChunk];
  double lanes[kExpChunk];
  PadChunk(x + i, n - i, padded);
  ExpChunk(padded, wide_max, Set(factor), chunk);
  for (int j = 0; j < kExpChunk / kLanesF64; ++j) {
    Store(lanes + j * kLanesF64, chunk[j]);
  }
  for (int j = 0; j < n - i; ++j) out[i + j] = lanes[j];
}

}  // namespace
}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_ROW_KERNELS_INL_H_
