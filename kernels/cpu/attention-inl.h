// Body of VectorKernels::attention, included once per instruction set.
//
// Online softmax over tiles of kKeyTile keys: with m the largest score so far,
// l the sum and o the weighted sum of values,
//   m' = max(m, max s);  p = e^(s - m');  c = e^(m - m');
//   l = l c + sum p;  o = o c + p V   (Milakov and Gimelshein, 2018).
// A tile's keys are widened to f32 and transposed once for all rows of the task
// that see it, so that both products are one small matrix product, C += A B,
// whose sum runs over its index in order for every element.
//
// Keys a row must not see get the score minus infinity, so they add an exact
// zero to l, and the product p V skips them: whatever the cache holds there,
// NaN included, cannot reach the row.
#ifndef OCTET_KERNELS_CPU_ATTENTION_INL_H_
#define OCTET_KERNELS_CPU_ATTENTION_INL_H_

#include <cstdint>

#include "kernels/cpu/vector_kernels.h"
#include "kernels/cpu/vector_math.h"

namespace octet::cpu {
namespace {

// c[kRows, kVectors * kLanes] = (or +=) a[kRows, k] b[k, ...].
template <int kRows, int kVectors>
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
      const F32 factor = Set(a[r * a_stride + i]);
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
template <int kRows>
void MultiplyRows(const float* a, int64_t a_stride, const float* b,
                  int64_t b_stride, int64_t k, bool accumulate, float* c,
                  int64_t c_stride, int64_t n) {
  // As many sums as hide the latency of Fma and fit the registers.
  constexpr int kVectors = kRows <= 2 ? 4 : 2;
  int64_t j = 0;
  for (; j + kVectors * kLanes <= n; j += kVectors * kLanes) {
    MultiplyBlock<kRows, kVectors>(a, a_stride, b + j, b_stride, k, accumulate,
                                   c + j, c_stride);
  }
  for (; j < n; j += kLanes) {
    MultiplyBlock<kRows, 1>(a, a_stride, b + j, b_stride, k, accumulate, c + j,
                            c_stride);
  }
}

// c[num_rows, n] = (or +=) a[num_rows, k] b[k, n].
void Multiply(const float* a, int64_t a_stride, const float* b,
              int64_t b_stride, int64_t k, bool accumulate, float* c,
              int64_t c_stride, int64_t n, int num_rows) {
  constexpr int kMostRows = kLanes == 16 ? 8 : 4;  // 32 or 16 registers
  int r = 0;
  for (; r + kMostRows <= num_rows; r += kMostRows) {
    MultiplyRows<kMostRows>(a + r * a_stride, a_stride, b, b_stride, k,
                            accumulate, c + r * c_stride, c_stride, n);
  }
  if (r + 4 <= num_rows) {
    MultiplyRows<4>(a + r * a_stride, a_stride, b, b_stride, k, accumulate,
                    c + r * c_stride, c_stride, n);
    r += 4;
  }
  for (; r + 2 <= num_rows; r += 2) {
    MultiplyRows<2>(a + r * a_stride, a_stride, b, b_stride, k, accumulate,
                    c + r * c_stride, c_stride, n);
  }
  if (r < num_rows) {
    MultiplyRows<1>(a + r * a_stride, a_stride, b, b_stride, k, accumulate,
                    c + r * c_stride, c_stride, n);
  }
}

// The state of a task; queries are (row, head of the group) pairs.
struct AttentionState {
  explicit AttentionState(const AttentionTask& task)
      : dim(PadHeadDim(task.head_dim)),
        num_queries(task.num_rows * task.group),
        query(task.scratch),
        out(query + num_queries * dim),
        score(out + num_queries * dim),
        max(score + num_queries * kKeyTile),
        sum(max + num_queries),
        key(sum + num_queries),
        value(key + dim * kKeyTile) {}

  const int64_t dim;  // padded to whole vectors
  const int num_queries;
  float* const query;  // [num_queries, dim]
  float* const out;    // [num_queries, dim]
  float* const score;  // [num_queries, kKeyTile]
  float* const max;    // [num_queries]
  float* const sum;    // [num_queries]
  float* const key;    // [dim, kKeyTile], transposed
  float* const value;  // [kKeyTile, dim]
};

void StartAttention(const AttentionTask& task, const AttentionState& state) {
  for (int i = 0; i < state.num_queries; ++i) {
    const float* from = task.q + i / task.group * task.q_stride +
                        i % task.group * static_cast<int64_t>(task.head_dim);
    for (int64_t d = 0; d < state.dim; d += kLanes) {
      const int64_t count = task.head_dim - d;
      Store(state.query + i * state.dim + d,
            count > 0 ? LoadUpTo(from + d, count) : Set(0.0f));
      Store(state.out + i * state.dim + d, Set(0.0f));
    }
    state.max[i] = -__builtin_inff();
    state.sum[i] = 0.0f;
  }
}

// Widens keys and values of positions [tile + begin, tile + end).
template <typename Cache>
void LoadTile(const AttentionTask& task, const AttentionState& state,
              int64_t tile, int begin, int end) {
  int64_t offsets[kKeyTile];
  for (int j = begin; j < end; ++j) {
    const int64_t position = tile + j;
    offsets[j] =
        task.block_table[position / task.block_tokens] * task.block_stride +
        position % task.block_tokens * task.head_dim;
  }
  const Cache* keys = static_cast<const Cache*>(task.keys);
  const Cache* values = static_cast<const Cache*>(task.values);
  for (int64_t d = 0; d < state.dim; d += kLanes) {
    const int64_t count = task.head_dim - d;
    for (int j0 = 0; j0 < kKeyTile; j0 += kLanes) {
      if (j0 + kLanes <= begin || j0 >= end) continue;
      F32 rows[kLanes];
      for (int j = 0; j < kLanes; ++j) {
        const bool seen = j0 + j >= begin && j0 + j < end && count > 0;
        rows[j] =
            seen ? LoadUpTo(keys + offsets[j0 + j] + d, count) : Set(0.0f);
      }
      StoreTransposed(rows, state.key + d * kKeyTile + j0, kKeyTile);
    }
  }
  for (int j = begin; j < end; ++j) {
    for (int64_t d = 0; d < state.dim; d += kLanes) {
      const int64_t count = task.head_dim - d;
      Store(state.value + j * state.dim + d,
            count > 0 ? LoadUpTo(values + offsets[j] + d, count) : Set(0.0f));
    }
  }
}

// One query's scores of a tile, of which [begin, end) are seen, become
// probabilities; l and o follow the new maximum.
[[gnu::always_inline]] inline void SoftmaxTile(const AttentionState& state,
                                               int query, int begin, int end,
                                               float scale) {
  float* score = state.score + query * kKeyTile;
  F32 values[kKeyTile / kLanes];
  F32 top = Set(-__builtin_inff());
  for (int v = 0; v < kKeyTile / kLanes; ++v) {
    values[v] = ReplaceOutside(Load(score + v * kLanes) * Set(scale),
                               begin - v * kLanes, end - v * kLanes,
                               Set(-__builtin_inff()));
    top = Max(top, values[v]);
  }
  const float tile_max = ReduceMax(top);
  const float old_max = state.max[query];
  const float new_max = old_max > tile_max ? old_max : tile_max;
  F32 total = Set(0.0f);
  for (int v = 0; v < kKeyTile / kLanes; ++v) {
    const F32 p = Exp(values[v] - Set(new_max));
    Store(score + v * kLanes, p);
    total = total + p;
  }
  const F32 correction = Exp(Set(old_max - new_max));
  float corrections[kLanes];
  Store(corrections, correction);
  state.sum[query] = state.sum[query] * corrections[0] + ReduceSum(total);
  state.max[query] = new_max;
  float* out = state.out + query * state.dim;
  for (int64_t d = 0; d < state.dim; d += kLanes) {
    Store(out + d, Load(out + d) * correction);
  }
}

void FinishAttention(const AttentionTask& task, const AttentionState& state) {
  for (int i = 0; i < state.num_queries; ++i) {
    const int64_t to = i / task.group * task.out_stride +
                       i % task.group * static_cast<int64_t>(task.head_dim);
    const F32 sum = Set(state.sum[i]);
    for (int64_t d = 0; d < task.head_dim; d += kLanes) {
      const F32 value = Load(state.out + i * state.dim + d) / sum;
      const int64_t count = task.head_dim - d;
      if (task.out_bf16) {
        StoreUpTo(static_cast<uint16_t*>(task.out) + to + d, value, count);
      } else {
        StoreUpTo(static_cast<float*>(task.out) + to + d, value, count);
      }
    }
  }
}

int64_t FirstSeen(const AttentionTask& task, int row) {
  const int64_t position = task.first_position + row;
  return task.window > 0 && position >= task.window ? position - task.window + 1
                                                    : 0;
}

int Clamp(int64_t value) {
  return static_cast<int>(value < 0 ? 0 : value < kKeyTile ? value : kKeyTile);
}

void Attention(const AttentionTask& task) {
  const AttentionState state(task);
  StartAttention(task, state);
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(task.head_dim));
  const int64_t end = task.first_position + task.num_rows;
  for (int64_t tile = FirstSeen(task, 0) / kKeyTile * kKeyTile; tile < end;
       tile += kKeyTile) {
    const int load_begin = Clamp(FirstSeen(task, 0) - tile);
    const int load_end = Clamp(end - tile);
    if (task.cache_bf16) {
      LoadTile<uint16_t>(task, state, tile, load_begin, load_end);
    } else {
      LoadTile<float>(task, state, tile, load_begin, load_end);
    }
    // Rows that see the same part of the tile go together.
    for (int row = 0; row < task.num_rows;) {
      const int seen_begin = Clamp(FirstSeen(task, row) - tile);
      const int seen_end = Clamp(task.first_position + row + 1 - tile);
      int last = row + 1;
      while (last < task.num_rows &&
             Clamp(FirstSeen(task, last) - tile) == seen_begin &&
             Clamp(task.first_position + last + 1 - tile) == seen_end) {
        ++last;
      }
      const int query = row * task.group;
      const int count = (last - row) * task.group;
      row = last;
      if (seen_begin >= seen_end) continue;
      float* score = state.score + query * kKeyTile;
      Multiply(state.query + query * state.dim, state.dim, state.key, kKeyTile,
               task.head_dim, false, score, kKeyTile, kKeyTile, count);
      for (int i = 0; i < count; ++i) {
        SoftmaxTile(state, query + i, seen_begin, seen_end, scale);
      }
      Multiply(score + seen_begin, kKeyTile,
               state.value + seen_begin * state.dim, state.dim,
               seen_end - seen_begin, true, state.out + query * state.dim,
               state.dim, state.dim, count);
    }
  }
  FinishAttention(task, state);
}

}  // namespace
}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_ATTENTION_INL_H_
