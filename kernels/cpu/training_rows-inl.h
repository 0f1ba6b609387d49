// Bodies of the row-wise functions of kernels/cpu/training_kernels.h, included
// once per instruction set.
#ifndef OCTET_KERNELS_CPU_TRAINING_ROWS_INL_H_
#define OCTET_KERNELS_CPU_TRAINING_ROWS_INL_H_

#include <cstdint>
#include <type_traits>

#include "kernels/cpu/training_kernels.h"
#include "kernels/cpu/vector_math.h"

namespace octet::cpu {
namespace {

// Calls body with the data as const float* or const uint16_t*.
template <typename Body>
[[gnu::always_inline]] inline void Visit(ConstElements x, const Body& body) {
  if (x.bf16) {
    body(static_cast<const uint16_t*>(x.data));
  } else {
    body(static_cast<const float*>(x.data));
  }
}
template <typename Body>
[[gnu::always_inline]] inline void Visit(Elements x, const Body& body) {
  if (x.bf16) {
    body(static_cast<uint16_t*>(x.data));
  } else {
    body(static_cast<float*>(x.data));
  }
}

template <typename In, typename Out>
void SwiGluOf(const In* gate, const In* up, int64_t n, Out* out) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = n - i;
    StoreUpTo(out + i,
              Silu(LoadUpTo(gate + i, count)) * LoadUpTo(up + i, count), count);
  }
}

void SwiGluRow(ConstElements gate, ConstElements up, int64_t n, Elements out) {
  Visit(gate, [&](const auto* a) {
    Visit(out, [&](auto* to) {
      SwiGluOf(a, static_cast<decltype(a)>(up.data), n, to);
    });
  });
}

template <typename In, typename Grad, typename Out>
void SwiGluBackwardOf(const In* gate, const In* up, const Grad* dout, int64_t n,
                      Out* dgate, Out* dup, In* out) {
  const F32 one = Set(1.0f);
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = n - i;
    const F32 a = LoadUpTo(gate + i, count);
    const F32 b = LoadUpTo(up + i, count);
    const F32 d = LoadUpTo(dout + i, count);
    const F32 s = one / (one + Exp(Set(0.0f) - a));
    if (out != nullptr) StoreUpTo(out + i, (a * s) * b, count);
    StoreUpTo(dgate + i, d * b * (s * Fma(a, one - s, one)), count);
    StoreUpTo(dup + i, d * (a * s), count);
  }
}

void SwiGluBackwardRow(ConstElements gate, ConstElements up, ConstElements dout,
                       int64_t n, Elements dgate, Elements dup, Elements out) {
  Visit(gate, [&](const auto* a) {
    Visit(dout, [&](const auto* d) {
      Visit(dgate, [&](auto* to) {
        using In = std::remove_const_t<std::remove_pointer_t<decltype(a)>>;
        SwiGluBackwardOf(a, static_cast<decltype(a)>(up.data), d, n, to,
                         static_cast<decltype(to)>(dup.data),
                         static_cast<In*>(out.data));
      });
    });
  });
}

// Sums of up to four vectors at a time, which hides the latency of Fma: calls
// add(i, count, sum) with the sum that elements [i, i + kLanes) belong to.
template <typename Add>
[[gnu::always_inline]] inline void ForFourSums(int64_t n, const Add& add) {
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int j = 0; j < 4; ++j) add(i + j * kLanes, kLanes, j);
  }
  for (; i < n; i += kLanes) add(i, n - i, 0);
}

[[gnu::always_inline]] inline float ReduceFour(const F32 (&sums)[4]) {
  return ReduceSum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

float InverseRms(const float* x, int64_t n, float eps) {
  F32 sums[4] = {Set(0.0f), Set(0.0f), Set(0.0f), Set(0.0f)};
  ForFourSums(n, [&](int64_t i, int64_t count, int j) {
    const F32 value = LoadUpTo(x + i, count);
    sums[j] = Fma(value, value, sums[j]);
  });
  return 1.0f / __builtin_sqrtf(ReduceFour(sums) / static_cast<float>(n) + eps);
}

void RmsNormBackwardRow(const float* x, const float* weight, float eps,
                        const float* dy, int64_t n, float* dx) {
  const float r = InverseRms(x, n, eps);
  F32 sums[4] = {Set(0.0f), Set(0.0f), Set(0.0f), Set(0.0f)};
  ForFourSums(n, [&](int64_t i, int64_t count, int j) {
    sums[j] = Fma(LoadUpTo(dy + i, count) * LoadUpTo(weight + i, count),
                  LoadUpTo(x + i, count), sums[j]);
  });
  const F32 shift = Set(-r * r * (ReduceFour(sums) / static_cast<float>(n)));
  const F32 scale = Set(r);
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = n - i;
    const F32 direct = LoadUpTo(dy + i, count) * LoadUpTo(weight + i, count);
    const F32 sum = Fma(LoadUpTo(x + i, count), shift, direct);
    StoreUpTo(dx + i, Fma(scale, sum, LoadUpTo(dx + i, count)), count);
  }
}

void AddProducts(const float* a, const float* b, float scale, int64_t n,
                 float* sums) {
  const F32 factor = Set(scale);
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = n - i;
    StoreUpTo(sums + i,
              Fma(LoadUpTo(a + i, count), factor * LoadUpTo(b + i, count),
                  LoadUpTo(sums + i, count)),
              count);
  }
}

template <typename In>
[[gnu::always_inline]] inline float DotOf(const float* x, const In* y,
                                          int64_t n) {
  F32 sums[4] = {Set(0.0f), Set(0.0f), Set(0.0f), Set(0.0f)};
  ForFourSums(n, [&](int64_t i, int64_t count, int j) {
    sums[j] = Fma(LoadUpTo(x + i, count), LoadUpTo(y + i, count), sums[j]);
  });
  return ReduceFour(sums);
}

float DotRow(const float* x, ConstElements y, int64_t n) {
  float result = 0.0f;
  Visit(y, [&](const auto* from) { result = DotOf(x, from, n); });
  return result;
}

void AddScaledRow(const float* x, float scale, int64_t n, float* out) {
  const F32 factor = Set(scale);
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = n - i;
    StoreUpTo(out + i,
              Fma(factor, LoadUpTo(x + i, count), LoadUpTo(out + i, count)),
              count);
  }
}

void ScaleRow(ConstElements x, float scale, int64_t n, Elements out) {
  const F32 factor = Set(scale);
  Visit(x, [&](const auto* from) {
    Visit(out, [&](auto* to) {
      for (int64_t i = 0; i < n; i += kLanes) {
        StoreUpTo(to + i, factor * LoadUpTo(from + i, n - i), n - i);
      }
    });
  });
}

// In f32 over blocks of this many vectors, then in double: an f32 sum of a
// whole vocabulary would lose digits.
constexpr int kExpBlock = 16;

double SumExpBlocks(const float* x, int64_t n, float max) {
  const F32 top = Set(max);
  double total = 0.0;
  int64_t i = 0;
  for (; i + kExpBlock * kLanes <= n; i += kExpBlock * kLanes) {
    F32 sums[2] = {Set(0.0f), Set(0.0f)};
    for (int j = 0; j < kExpBlock; ++j) {
      sums[j % 2] = sums[j % 2] + Exp(Load(x + i + j * kLanes) - top);
    }
    total += static_cast<double>(ReduceSum(sums[0] + sums[1]));
  }
  F32 sum = Set(0.0f);
  for (; i + kLanes <= n; i += kLanes) sum = sum + Exp(Load(x + i) - top);
  if (i < n) {
    sum = sum + ReplaceOutside(Exp(LoadUpTo(x + i, n - i) - top), 0,
                               static_cast<int>(n - i), Set(0.0f));
  }
  return total + static_cast<double>(ReduceSum(sum));
}

void SoftmaxRow(const float* x, int64_t n, float max, float log_sum,
                float scale, Elements out) {
  const F32 top = Set(max);
  const F32 shift = Set(log_sum);
  const F32 factor = Set(scale);
  Visit(out, [&](auto* to) {
    for (int64_t i = 0; i < n; i += kLanes) {
      const F32 p = Exp((LoadUpTo(x + i, n - i) - top) - shift);
      StoreUpTo(to + i, factor * p, n - i);
    }
  });
}

// Philox4x32-10 (kernels/philox.h) of kLanes counters at once, in two chains:
// one for the counters in even lanes and one for those in odd lanes, each on
// the even lanes of its vectors, where a word's product has room.
[[gnu::always_inline]] inline void PhiloxLanes(uint64_t seed, U32 (&words)[4]) {
  uint32_t key[2] = {static_cast<uint32_t>(seed),
                     static_cast<uint32_t>(seed >> 32)};
  U32 chains[2][4];
  for (int j = 0; j < 4; ++j) {
    chains[0][j] = words[j];
    chains[1][j] = OddToEven(words[j]);
  }
  for (int round = 0; round < 10; ++round) {
    for (U32(&w)[4] : chains) {
      const U32 a = MultiplyEven(w[0], SetU32(0xD2511F53));
      const U32 b = MultiplyEven(w[2], SetU32(0xCD9E8D57));
      w[0] = XorU32(XorU32(OddToEven(b), w[1]), SetU32(key[0]));
      w[1] = b;
      w[2] = XorU32(XorU32(OddToEven(a), w[3]), SetU32(key[1]));
      w[3] = a;
    }
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  for (int j = 0; j < 4; ++j) words[j] = JoinEven(chains[0][j], chains[1][j]);
}

template <typename In, typename Out>
void DropoutElements(const DropoutRow& row, const In* x, int64_t n,
                     bool accumulate, Out* out) {
  // Lane 4 L + i draws block i kLanes / 4 + L, so that after the transposition
  // the words lie in the order of the columns.
  uint32_t blocks[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    blocks[lane] = static_cast<uint32_t>(lane % 4 * (kLanes / 4) + lane / 4);
  }
  const U32 block_ids = LoadU32(blocks);
  const U32 threshold = SetU32(row.threshold);
  const F32 factor = Set(row.factor);
  for (int64_t i = 0; i < n; i += 4 * kLanes) {
    const uint64_t first = static_cast<uint64_t>(i) / 4;
    U32 words[4] = {AddU32(block_ids, SetU32(static_cast<uint32_t>(first))),
                    SetU32(static_cast<uint32_t>(first >> 32)),
                    SetU32(static_cast<uint32_t>(row.row_key)),
                    SetU32(static_cast<uint32_t>(row.row_key >> 32))};
    PhiloxLanes(row.seed, words);
    TransposeQuads(words);
    for (int j = 0; j < 4; ++j) {
      const int64_t at = i + j * kLanes;
      const int64_t count = n - at;
      if (count <= 0) break;
      F32 value =
          ZeroWhereLess(words[j], threshold, factor * LoadUpTo(x + at, count));
      if (accumulate) value = LoadUpTo(out + at, count) + value;
      StoreUpTo(out + at, value, count);
    }
  }
}

void DropoutOfRow(const DropoutRow& row, ConstElements x, int64_t n,
                  bool accumulate, Elements out) {
  Visit(x, [&](const auto* from) {
    Visit(out,
          [&](auto* to) { DropoutElements(row, from, n, accumulate, to); });
  });
}

double SumSquares(const float* x, int64_t n) {
  F64 sums[4] = {Set(0.0), Set(0.0), Set(0.0), Set(0.0)};
  int64_t i = 0;
  for (; i + 4 * kLanesF64 <= n; i += 4 * kLanesF64) {
    for (int j = 0; j < 4; ++j) {
      const F64 value = LoadAsF64(x + i + j * kLanesF64);
      sums[j] = Fma(value, value, sums[j]);
    }
  }
  double lanes[kLanesF64];
  Store(lanes, (sums[0] + sums[1]) + (sums[2] + sums[3]));
  double total = 0.0;
  for (double lane : lanes) total += lane;
  for (; i < n; ++i) {
    total += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
  return total;
}

void AdamWRow(const AdamWStep& step, const float* grad, int64_t n,
              float* weight, float* m, float* v) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = n - i;
    const F32 g = Set(step.grad_scale) * LoadUpTo(grad + i, count);
    const F32 mean =
        Fma(Set(step.beta1), LoadUpTo(m + i, count), Set(step.rest1) * g);
    const F32 square =
        Fma(Set(step.beta2), LoadUpTo(v + i, count), Set(step.rest2) * g * g);
    StoreUpTo(m + i, mean, count);
    StoreUpTo(v + i, square, count);
    const F32 ratio =
        mean / Fma(Sqrt(square), Set(step.correction), Set(step.eps));
    const F32 decayed = Set(step.decay) * LoadUpTo(weight + i, count);
    StoreUpTo(weight + i, Fma(Set(-step.rate), ratio, decayed), count);
  }
}

}  // namespace
}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_TRAINING_ROWS_INL_H_
