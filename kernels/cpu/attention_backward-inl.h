// Body of TrainingKernels::attention_backward, included once per instruction
// set.
//
// A block of queries (rows times the heads of the group) meets the keys in
// tiles of kBackwardKeyTile positions, three times: scores and their maximum;
// exponentials and their sum; and, with P the probabilities,
//   dP = dout V^T ; dS = P (dP - rowsum(dout out)) / sqrt(D)
//   dV += P^T dout ; dK += dS^T Q ; dQ += dS K.
// All scores of a block are kept, so nothing is computed twice: five products
// of 2 D flops for each pair of a query and a key. Each is a small matrix
// product on operands that are laid out for it once: keys both ways, values
// transposed, P and dS in tiles, which are read transposed for dV and dK.
//
// The order of every sum is a function of positions in the sequence.
#ifndef OCTET_KERNELS_CPU_ATTENTION_BACKWARD_INL_H_
#define OCTET_KERNELS_CPU_ATTENTION_BACKWARD_INL_H_

#include <cstdint>

#include "kernels/cpu/small_multiply-inl.h"
#include "kernels/cpu/training_kernels.h"
#include "kernels/cpu/training_rows-inl.h"
#include "kernels/cpu/vector_math.h"

namespace octet::cpu {
namespace {

constexpr int kTile = kBackwardKeyTile;

struct BackwardState {
  explicit BackwardState(const AttentionBackwardTask& task)
      : dim(PadHeadDim(task.head_dim)),
        rows(PadRows(task.num_rows)),
        most_queries(int64_t{BackwardRowsAtOnce(task.group)} * task.group),
        key_t(task.scratch),
        value_t(key_t + rows * dim),
        dk(value_t + rows * dim),
        dv(dk + rows * dim),
        p(dv + rows * dim),
        ds(p + rows * most_queries),
        query(ds + kTile * most_queries),
        dout(query + most_queries * dim),
        dq(dout + most_queries * dim),
        max(dq + most_queries * dim),
        sum(max + most_queries),
        delta(sum + most_queries) {}

  const int64_t dim;   // padded to whole vectors
  const int64_t rows;  // padded to whole tiles
  const int64_t most_queries;
  float* const key_t;    // [rows / kTile][dim, kTile]
  float* const value_t;  // the same
  float* const dk;       // [rows, dim]
  float* const dv;       // [rows, dim]
  float* const p;        // [rows / kTile][queries, kTile]
  float* const ds;       // [queries, kTile]
  float* const query;    // [queries, dim]
  float* const dout;     // [queries, dim]
  float* const dq;       // [queries, dim]
  float* const max;      // [queries]
  float* const sum;      // [queries]
  float* const delta;    // [queries]: rowsum(dout out)
};

// Consecutive rows of the sequence, and the keys that one of them sees.
struct QueryBlock {
  int64_t first_row;
  int num_rows;
  int num_queries;
  int64_t key_begin;
  int64_t key_end;
};

int64_t FirstKey(const AttentionBackwardTask& task, int64_t row) {
  return task.window > 0 && row >= task.window ? row - task.window + 1 : 0;
}

int WithinTile(int64_t offset) {
  return static_cast<int>(offset < 0 ? 0 : offset < kTile ? offset : kTile);
}

// to = from [rows, dim] by tiles, each transposed.
void TransposeTiles(const BackwardState& state, const float* from, float* to) {
  for (int64_t tile = 0; tile < state.rows; tile += kTile) {
    for (int64_t j = 0; j < kTile; j += kLanes) {
      for (int64_t d = 0; d < state.dim; d += kLanes) {
        F32 rows[kLanes];
        for (int i = 0; i < kLanes; ++i) {
          rows[i] = Load(from + (tile + j + i) * state.dim + d);
        }
        StoreTransposed(rows, to + tile * state.dim + d * kTile + j, kTile);
      }
    }
  }
}

template <typename Out, typename Grad>
void LoadQueries(const AttentionBackwardTask& task, const BackwardState& state,
                 const QueryBlock& block, const Out* out, const Grad* dout) {
  for (int i = 0; i < block.num_queries; ++i) {
    const int64_t at = (block.first_row + i / task.group) * task.q_stride +
                       i % task.group * static_cast<int64_t>(task.head_dim);
    F32 delta = Set(0.0f);
    for (int64_t d = 0; d < state.dim; d += kLanes) {
      const int64_t count = task.head_dim - d;
      F32 q = Set(0.0f);
      F32 gradient = Set(0.0f);
      if (count > 0) {
        q = LoadUpTo(task.q + at + d, count);
        gradient = LoadUpTo(dout + at + d, count);
        delta = Fma(gradient, LoadUpTo(out + at + d, count), delta);
      }
      Store(state.query + i * state.dim + d, q);
      Store(state.dout + i * state.dim + d, gradient);
      Store(state.dq + i * state.dim + d, Set(0.0f));
    }
    state.delta[i] = ReduceSum(delta);
    state.max[i] = -__builtin_inff();
    state.sum[i] = 0.0f;
  }
}

void LoadQueryBlock(const AttentionBackwardTask& task,
                    const BackwardState& state, const QueryBlock& block) {
  Visit(task.out, [&](const auto* out) {
    Visit(task.dout, [&](const auto* dout) {
      LoadQueries(task, state, block, out, dout);
    });
  });
}

// Scores of a tile's first `columns` keys; those that a query does not see
// become minus infinity.
void ScoreTile(const AttentionBackwardTask& task, const BackwardState& state,
               const QueryBlock& block, int64_t tile, int64_t columns,
               float scale) {
  float* scores = state.p + tile * state.most_queries;
  Multiply<false>(state.query, state.dim, state.key_t + tile * state.dim, kTile,
                  task.head_dim, false, scores, kTile, columns,
                  block.num_queries);
  for (int i = 0; i < block.num_queries; ++i) {
    const int64_t row = block.first_row + i / task.group;
    const int begin = WithinTile(FirstKey(task, row) - tile);
    const int end = WithinTile(row + 1 - tile);
    F32 top = Set(-__builtin_inff());
    for (int v = 0; v < columns; v += kLanes) {
      const F32 value =
          ReplaceOutside(Load(scores + i * kTile + v) * Set(scale), begin - v,
                         end - v, Set(-__builtin_inff()));
      Store(scores + i * kTile + v, value);
      top = Max(top, value);
    }
    const float max = ReduceMax(top);
    state.max[i] = state.max[i] > max ? state.max[i] : max;
  }
}

// Scores become exponentials.
void ExponentiateTile(const BackwardState& state, const QueryBlock& block,
                      int64_t tile, int64_t columns) {
  float* p = state.p + tile * state.most_queries;
  for (int i = 0; i < block.num_queries; ++i) {
    const F32 max = Set(state.max[i]);
    F32 total = Set(0.0f);
    for (int v = 0; v < columns; v += kLanes) {
      const F32 value = Exp(Load(p + i * kTile + v) - max);
      Store(p + i * kTile + v, value);
      total = total + value;
    }
    state.sum[i] += ReduceSum(total);
  }
}

// Exponentials become probabilities, and the tile's share of all gradients is
// added.
void DifferentiateTile(const AttentionBackwardTask& task,
                       const BackwardState& state, const QueryBlock& block,
                       int64_t tile, int64_t columns, float scale) {
  float* p = state.p + tile * state.most_queries;
  Multiply<false>(state.dout, state.dim, state.value_t + tile * state.dim,
                  kTile, task.head_dim, false, state.ds, kTile, columns,
                  block.num_queries);
  for (int i = 0; i < block.num_queries; ++i) {
    const F32 inverse = Set(1.0f / state.sum[i]);
    const F32 delta = Set(state.delta[i]);
    for (int v = 0; v < columns; v += kLanes) {
      const F32 probability = Load(p + i * kTile + v) * inverse;
      Store(p + i * kTile + v, probability);
      float* ds = state.ds + i * kTile + v;
      Store(ds, probability * (Load(ds) - delta) * Set(scale));
    }
  }
  const int keys = static_cast<int>(columns);
  Multiply<true>(p, kTile, state.dout, state.dim, block.num_queries, true,
                 state.dv + tile * state.dim, state.dim, state.dim, keys);
  Multiply<true>(state.ds, kTile, state.query, state.dim, block.num_queries,
                 true, state.dk + tile * state.dim, state.dim, state.dim, keys);
  Multiply<false>(state.ds, kTile, task.keys + tile * state.dim, state.dim,
                  columns, true, state.dq, state.dim, state.dim,
                  block.num_queries);
}

// num_rows rows of `head_dim` of from [.., dim]; row i goes to to + i stride.
void StoreRows(const float* from, int64_t dim, int64_t num_rows, int head_dim,
               float* to, int64_t stride) {
  for (int64_t i = 0; i < num_rows; ++i) {
    for (int64_t d = 0; d < head_dim; d += kLanes) {
      StoreUpTo(to + i * stride + d, Load(from + i * dim + d), head_dim - d);
    }
  }
}

void BackwardBlock(const AttentionBackwardTask& task,
                   const BackwardState& state, const QueryBlock& block) {
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(task.head_dim));
  const int64_t first = block.key_begin / kTile * kTile;
  // Whole vectors up to the last key that is seen.
  const auto columns = [&](int64_t tile) {
    return (WithinTile(block.key_end - tile) + int64_t{15}) / 16 * 16;
  };
  LoadQueryBlock(task, state, block);
  for (int64_t tile = first; tile < block.key_end; tile += kTile) {
    ScoreTile(task, state, block, tile, columns(tile), scale);
  }
  for (int64_t tile = first; tile < block.key_end; tile += kTile) {
    ExponentiateTile(state, block, tile, columns(tile));
  }
  for (int64_t tile = first; tile < block.key_end; tile += kTile) {
    DifferentiateTile(task, state, block, tile, columns(tile), scale);
  }
  for (int row = 0; row < block.num_rows; ++row) {
    StoreRows(state.dq + row * task.group * state.dim, state.dim, task.group,
              task.head_dim, task.dq + (block.first_row + row) * task.q_stride,
              task.head_dim);
  }
}

void AttentionBackward(const AttentionBackwardTask& task) {
  const BackwardState state(task);
  TransposeTiles(state, task.keys, state.key_t);
  TransposeTiles(state, task.values, state.value_t);
  for (int64_t i = 0; i < 2 * state.rows * state.dim; i += kLanes) {
    Store(state.dk + i, Set(0.0f));  // and dv, which follows
  }
  const int most_rows = BackwardRowsAtOnce(task.group);
  for (int64_t row = 0; row < task.num_rows; row += most_rows) {
    const int64_t left = task.num_rows - row;
    const int num_rows = static_cast<int>(left < most_rows ? left : most_rows);
    BackwardBlock(task, state,
                  {row, num_rows, num_rows * task.group, FirstKey(task, row),
                   row + num_rows});
  }
  StoreRows(state.dk, state.dim, task.num_rows, task.head_dim, task.dk,
            task.kv_stride);
  StoreRows(state.dv, state.dim, task.num_rows, task.head_dim, task.dv,
            task.kv_stride);
}

}  // namespace
}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_ATTENTION_BACKWARD_INL_H_
