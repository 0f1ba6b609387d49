#include "kernels/cpu/attention_backward.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/status_macros.h"
#include "kernels/cpu/float_rows.h"

namespace octet::cpu {
namespace {

// What all pieces share.
struct Problem {
  const VectorKernels& kernels;
  ConstTensor q;
  const KvCacheView& cache;
  int window;
  ConstTensor out;
  ConstTensor dout;
  Tensor dq;
  Tensor dk;
  Tensor dv;
};

// Keys (or values) of one head of a sequence as [S, D] f32.
void Widen(const Problem& problem, const AttentionSequence& sequence, int head,
           const void* base, float* to) {
  const KvCacheView& cache = problem.cache;
  const int64_t dim = cache.head_dim;
  const ConstTensor all(
      base, cache.dtype,
      {cache.num_blocks * cache.num_kv_heads * cache.block_tokens * dim});
  for (int64_t p = 0; p < sequence.num_rows; ++p) {
    const int64_t block = sequence.block_table[p / cache.block_tokens];
    const int64_t at =
        ((block * cache.num_kv_heads + head) * cache.block_tokens +
         p % cache.block_tokens) *
        dim;
    const float* from = ReadFloats(problem.kernels, all, at, dim, to + p * dim);
    if (from != to + p * dim) std::copy_n(from, dim, to + p * dim);
  }
}

float Dot(const float* a, const float* b, int64_t n) {
  float sum = 0.0f;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

void AddTo(float* to, float factor, const float* from, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += factor * from[i];
}

struct Scratch {
  Scratch(float* memory, int64_t length, int64_t dim)
      : keys(memory),
        values(keys + length * dim),
        p(values + length * dim),
        out(p + length),
        dout(out + dim) {}
  static int64_t Floats(int64_t length, int64_t dim) {
    return 2 * length * dim + length + 2 * dim;
  }

  float* const keys;    // [S, D]
  float* const values;  // [S, D]
  float* const p;       // [S]
  float* const out;     // [D]
  float* const dout;    // [D]
};

// Probabilities of keys [begin, end) for a query.
void Probabilities(const Problem& problem, const Scratch& scratch,
                   const float* query, int64_t begin, int64_t end) {
  const int64_t dim = problem.cache.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  float max = -INFINITY;
  for (int64_t j = begin; j < end; ++j) {
    scratch.p[j] = Dot(query, scratch.keys + j * dim, dim) * scale;
    max = std::max(max, scratch.p[j]);
  }
  for (int64_t j = begin; j < end; ++j) scratch.p[j] -= max;
  problem.kernels.exp(scratch.p + begin, end - begin);
  float sum = 0.0f;
  for (int64_t j = begin; j < end; ++j) sum += scratch.p[j];
  for (int64_t j = begin; j < end; ++j) scratch.p[j] /= sum;
}

// Row `row` of the sequence, query head `head`.
void BackwardRow(const Problem& problem, const Scratch& scratch,
                 const AttentionSequence& sequence, int64_t row, int head,
                 int kv_head) {
  const int64_t dim = problem.cache.head_dim;
  const int64_t kv_row = problem.dk.dim(1);
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  const int64_t at = (sequence.row_begin + row) * problem.q.dim(1) + head * dim;
  const float* query = problem.q.as<float>() + at;
  const float* out =
      ReadFloats(problem.kernels, problem.out, at, dim, scratch.out);
  const float* dout =
      ReadFloats(problem.kernels, problem.dout, at, dim, scratch.dout);
  const int64_t begin =
      problem.window > 0 ? std::max<int64_t>(0, row - problem.window + 1) : 0;
  Probabilities(problem, scratch, query, begin, row + 1);
  const float delta = Dot(dout, out, dim);
  float* dq = problem.dq.as<float>() + at;
  std::fill_n(dq, dim, 0.0f);
  for (int64_t j = begin; j <= row; ++j) {
    const int64_t to =
        (sequence.row_begin + j) * kv_row + int64_t{kv_head} * dim;
    const float p = scratch.p[j];
    const float ds =
        p * (Dot(dout, scratch.values + j * dim, dim) - delta) * scale;
    AddTo(problem.dv.as<float>() + to, p, dout, dim);
    AddTo(problem.dk.as<float>() + to, ds, query, dim);
    AddTo(dq, ds, scratch.keys + j * dim, dim);
  }
}

void BackwardHead(const Problem& problem, const AttentionSequence& sequence,
                  int kv_head, float* memory) {
  const int64_t dim = problem.cache.head_dim;
  const int64_t kv_row = problem.dk.dim(1);
  const int group = static_cast<int>(problem.q.dim(1) / kv_row);
  const Scratch scratch(memory, sequence.num_rows, dim);
  Widen(problem, sequence, kv_head, problem.cache.keys, scratch.keys);
  Widen(problem, sequence, kv_head, problem.cache.values, scratch.values);
  for (int64_t j = 0; j < sequence.num_rows; ++j) {
    const int64_t to =
        (sequence.row_begin + j) * kv_row + int64_t{kv_head} * dim;
    std::fill_n(problem.dk.as<float>() + to, dim, 0.0f);
    std::fill_n(problem.dv.as<float>() + to, dim, 0.0f);
  }
  for (int64_t row = 0; row < sequence.num_rows; ++row) {
    for (int g = 0; g < group; ++g) {
      BackwardRow(problem, scratch, sequence, row, kv_head * group + g,
                  kv_head);
    }
  }
}

}  // namespace

absl::Status AttentionBackward(CpuContext& context, ConstTensor q,
                               const KvCacheView& cache,
                               absl::Span<const AttentionSequence> sequences,
                               int sliding_window, ConstTensor out,
                               ConstTensor dout, Tensor dq, Tensor dk,
                               Tensor dv) {
  int64_t longest = 0;
  for (const AttentionSequence& sequence : sequences) {
    longest = std::max(longest, sequence.num_rows);
  }
  OCTET_RETURN_IF_ERROR(context.ReserveScratch(
      sizeof(float) * Scratch::Floats(longest, cache.head_dim)));
  const Problem problem{
      context.kernels(), q, cache, sliding_window, out, dout, dq, dk, dv};
  const int64_t heads = cache.num_kv_heads;
  context.pool().ParallelFor(
      static_cast<int64_t>(sequences.size()) * heads,
      [&](int64_t item, int thread) {
        BackwardHead(problem, sequences[item / heads],
                     static_cast<int>(item % heads),
                     static_cast<float*>(context.scratch(thread)));
      });
  return absl::OkStatus();
}

}  // namespace octet::cpu
