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

#include "kernels/cpu/small_multiply-inl.h"
#include "kernels/cpu/vector_kernels.h"
#include "kernels/cpu/vector_math.h"

namespace octet::cpu {
namespace {

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

// Elements from the start of the head's keys (and values) to those of position
// `tile` + j, for j in [begin, end).
struct TileOffsets {
  TileOffsets(const AttentionTask& task, int64_t tile, int begin, int end)
      : begin(begin), end(end) {
    for (int j = begin; j < end; ++j) {
      const int64_t position = tile + j;
      at[j] =
          task.block_table[position / task.block_tokens] * task.block_stride +
          position % task.block_tokens * task.head_dim;
    }
  }

  const int begin;
  const int end;
  int64_t at[kKeyTile];
};

// A decode's arithmetic is as long as its loads: both go at once when the next
// tile is asked for before this one is worked on.
template <typename Cache>
void PrefetchTile(const AttentionTask& task, const TileOffsets& next) {
  constexpr int64_t kLine = 64 / sizeof(Cache);
  const Cache* keys = static_cast<const Cache*>(task.keys);
  const Cache* values = static_cast<const Cache*>(task.values);
  for (int j = next.begin; j < next.end; ++j) {
    for (int64_t d = 0; d < task.head_dim; d += kLine) {
      __builtin_prefetch(keys + next.at[j] + d);
      __builtin_prefetch(values + next.at[j] + d);
    }
  }
}

// Widens the tile's keys and values. What is not in the tile's range is zero or
// left over, in lanes and rows that nobody reads.
template <typename Cache>
void LoadTile(const AttentionTask& task, const AttentionState& state,
              const TileOffsets& tile) {
  const Cache* keys = static_cast<const Cache*>(task.keys);
  const Cache* values = static_cast<const Cache*>(task.values);
  for (int j0 = 0; j0 < kKeyTile; j0 += kLanes) {
    if (j0 + kLanes <= tile.begin || j0 >= tile.end) continue;
    const bool whole = j0 >= tile.begin && j0 + kLanes <= tile.end;
    for (int64_t d = 0; d < task.head_dim; d += kLanes) {
      const int64_t count = task.head_dim - d;
      F32 rows[kLanes];
      for (int j = 0; j < kLanes; ++j) {
        const bool seen = whole || (j0 + j >= tile.begin && j0 + j < tile.end);
        rows[j] =
            seen ? LoadUpTo(keys + tile.at[j0 + j] + d, count) : Set(0.0f);
      }
      StoreTransposed(rows, state.key + d * kKeyTile + j0, kKeyTile);
    }
  }
  for (int j = tile.begin; j < tile.end; ++j) {
    for (int64_t d = 0; d < state.dim; d += kLanes) {
      const int64_t count = task.head_dim - d;
      Store(state.value + j * state.dim + d,
            count > 0 ? LoadUpTo(values + tile.at[j] + d, count) : Set(0.0f));
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

// The rows of the task take in a tile that has been loaded.
void AttendTile(const AttentionTask& task, const AttentionState& state,
                int64_t tile, float scale) {
  const auto seen_begin = [&](int row) {
    return Clamp(FirstSeen(task, row) - tile);
  };
  const auto seen_end = [&](int row) {
    return Clamp(task.first_position + row + 1 - tile);
  };
  // Rows that see the same part of the tile go together.
  for (int row = 0; row < task.num_rows;) {
    const int begin = seen_begin(row);
    const int end = seen_end(row);
    int last = row + 1;
    while (last < task.num_rows && seen_begin(last) == begin &&
           seen_end(last) == end) {
      ++last;
    }
    const int query = row * task.group;
    const int count = (last - row) * task.group;
    row = last;
    if (begin >= end) continue;
    float* score = state.score + query * kKeyTile;
    Multiply<false>(state.query + query * state.dim, state.dim, state.key,
                    kKeyTile, task.head_dim, false, score, kKeyTile, kKeyTile,
                    count);
    for (int i = 0; i < count; ++i) {
      SoftmaxTile(state, query + i, begin, end, scale);
    }
    Multiply<false>(score + begin, kKeyTile, state.value + begin * state.dim,
                    state.dim, end - begin, true, state.out + query * state.dim,
                    state.dim, state.dim, count);
  }
}

template <typename Cache>  // float or uint16_t (bf16)
void AttendTiles(const AttentionTask& task, const AttentionState& state) {
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(task.head_dim));
  const int64_t begin = FirstSeen(task, 0);
  const int64_t end = task.first_position + task.num_rows;
  for (int64_t tile = begin / kKeyTile * kKeyTile; tile < end;
       tile += kKeyTile) {
    LoadTile<Cache>(task, state,
                    {task, tile, Clamp(begin - tile), Clamp(end - tile)});
    const int64_t next = tile + kKeyTile;
    PrefetchTile<Cache>(task, {task, next, 0, Clamp(end - next)});
    AttendTile(task, state, tile, scale);
  }
}

void Attention(const AttentionTask& task) {
  const AttentionState state(task);
  StartAttention(task, state);
  if (task.cache_bf16) {
    AttendTiles<uint16_t>(task, state);
  } else {
    AttendTiles<float>(task, state);
  }
  FinishAttention(task, state);
}

}  // namespace
}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_ATTENTION_INL_H_
