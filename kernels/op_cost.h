// What an operation of kernels/backend.h must move and compute at least, and
// the shortest time in which a device could do it (a roofline: Williams,
// Waterman and Patterson, 2009). Pure functions of shapes; no device is
// touched.
//
// Bytes: every input byte that the operation needs is read from memory once,
// every output byte is written once; arguments in host memory do not count. An
// operation that finds its input in a cache can be faster than its floor.
//
// Flops: what the formula of backend.h needs. A multiply-add counts 2; a
// comparison, a division, an exponential each 1. Copies and conversions
// between dtypes count nothing.
//
// Notation: T tokens, H hidden size, F expert FFN size, E experts, K top-k, V
// vocabulary, D head size, N_q query heads, N_kv key/value heads, s bytes of an
// element of the compute dtype. Sizes are trusted to be 0 or more.
#ifndef OCTET_KERNELS_OP_COST_H_
#define OCTET_KERNELS_OP_COST_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/dtype.h"

namespace octet {

struct OpCost {
  double bytes = 0;  // read and written
  double flops = 0;
  DType unit = DType::kF32;  // whose peak bounds the flops: bf16 (matrix unit)
                             // or f32
};

// A device at its best.
struct DeviceLimits {
  double bytes_per_second = 0;  // from and to memory
  double bf16_flops_per_second = 0;
  double f32_flops_per_second = 0;
};

// Seconds: max(bytes / bandwidth, flops / peak of the unit).
double FloorSeconds(const OpCost& cost, const DeviceLimits& limits);

// Bytes T (s H + 4 H + 4), s of the table.
OpCost EmbeddingCost(int64_t tokens, int64_t hidden, DType table);

// Bytes T H (4 + o) + 4 H, o of the output; flops 4 T H (square and add; two
// products).
OpCost RmsNormCost(int64_t tokens, int64_t hidden, DType out);

// x [rows, k] times W [n, k]. Bytes s (n k + rows k) + o rows n, and 4 rows n
// more when it accumulates; flops 2 rows n k.
OpCost GemmCost(int64_t rows, int64_t n, int64_t k, DType dtype, DType out,
                bool accumulate);

// The sum over groups with rows: GemmCost for each.
OpCost GroupedGemmCost(absl::Span<const int64_t> group_rows, int64_t n,
                       int64_t k, DType dtype, DType out);

// The same for W13 [2F, k] and an output of F columns of `dtype`; 5 flops more
// for each of them (silu(a) = a / (1 + exp(-a)), negated exponent included, and
// the product).
OpCost GroupedGemmSwiGluCost(absl::Span<const int64_t> group_rows, int64_t ffn,
                             int64_t k, DType dtype);

// Bytes T ((N_q + 2 N_kv) 4 D + 12 + 4 N_q D + 2 c N_kv D), c of the cache;
// flops 3 for each element that is rotated, T (N_q + N_kv) D of them. Angles
// are left out: how they are found is the backend's choice.
OpCost RopeAndCacheCost(int64_t tokens, const RopeParams& params, DType cache);

// Queries of one sequence at positions first_position, first_position + 1, ...
struct AttentionRange {
  int64_t num_rows = 0;
  int64_t first_position = 0;
};

struct AttentionCostShape {
  int num_heads = 0;       // N_q
  int num_kv_heads = 0;    // N_kv
  int head_dim = 0;        // D
  int sliding_window = 0;  // tokens; 0: none
  DType cache = DType::kBF16;
  DType out = DType::kBF16;
};

// Of each sequence: bytes rows N_q D (4 + o) for queries and output, and 2 c
// N_kv D for each key that any of its rows sees; flops 4 N_q D for each pair of
// a row and a key that it sees. The softmax is left out (some 1 / D of that).
// Sequences share no keys here.
OpCost PagedAttentionCost(absl::Span<const AttentionRange> sequences,
                          const AttentionCostShape& shape);

// Bytes T (4 E + 8 K); flops T (4 E + K E + 2 K): largest logit, exponentials
// and their sum; K passes of comparisons; renormalised.
OpCost RouterCost(int64_t tokens, int64_t experts, int64_t top_k);

// Bytes s H (source_rows + rows) + 4 rows; source_rows are the different rows
// that are read.
OpCost GatherRowsCost(int64_t source_rows, int64_t rows, int64_t hidden,
                      DType dtype);

// Bytes T (K H s + 8 H + 8 K); flops 2 T K H.
OpCost CombineRowsCost(int64_t tokens, int64_t top_k, int64_t hidden,
                       DType rows);

// One token per row of logits, by temperature, without filters or penalties.
// Bytes 4 N V; flops 5 N V (temperature, largest, and exponential of the
// difference, summed). What comes back to the host is left out.
OpCost SampleCost(int64_t rows, int64_t vocab);

// Without a list of likeliest tokens. Bytes 4 N V; flops 4 N V.
OpCost ScoreTokensCost(int64_t rows, int64_t vocab);

}  // namespace octet

#endif  // OCTET_KERNELS_OP_COST_H_
