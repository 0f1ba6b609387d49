// What the operations of kernels/training_backend.h must move and compute at
// least: kernels/op_cost.h for training, with the same rules. The products of
// gradients are products: dx = dy W costs GemmCost(T, k, n), which reads W, dy
// and writes dx.
#ifndef OCTET_KERNELS_TRAINING_COST_H_
#define OCTET_KERNELS_TRAINING_COST_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/dtype.h"
#include "kernels/op_cost.h"

namespace octet {

// dw [n, k] from x [T, k] and dy [T, n]. Bytes s T (n + k) + 4 n k, and 4 n k
// more when it accumulates; flops 2 T n k.
OpCost GemmBackwardWeightCost(int64_t tokens, int64_t n, int64_t k, DType dtype,
                              bool accumulate);

// Bytes T F (2 h + o); flops 5 T F (as GroupedGemmSwiGluCost).
OpCost SwiGluCost(int64_t tokens, int64_t ffn, DType h, DType out);
// h, dout and dh. Bytes T F (2 h + d + 2 g); flops 12 T F: s 4, gradient of the
// gate 6, of the other half 2.
OpCost SwiGluBackwardCost(int64_t tokens, int64_t ffn, DType h, DType dout,
                          DType dh);

// Bytes 16 T H + 4 H; flops 9 T H: square, product with the weight and with x,
// two sums; four for the result.
OpCost RmsNormBackwardCost(int64_t tokens, int64_t hidden);
// Bytes 8 T H + 4 H; flops 5 T H.
OpCost RmsNormBackwardWeightCost(int64_t tokens, int64_t hidden);

// Whole sequences; shape.out is the dtype of out and dout. Of each: bytes rows
// N_q D (8 + 2 o) for q, dq, out and dout, and rows N_kv D (2 c + 8) for keys,
// values and their gradients; flops 10 N_q D for each pair of a row and a key
// that it sees (five products). The softmax is left out, as there.
OpCost AttentionBackwardCost(absl::Span<const int64_t> lengths,
                             const AttentionCostShape& shape);
// Bytes T (N_q + 2 N_kv) D (4 + o) + 4 T; flops 3 T (N_q + N_kv) D.
OpCost RopeBackwardCost(int64_t tokens, const RopeParams& params, DType out);

// Bytes T (12 K + 4 E); flops 4 T K.
OpCost RouterBackwardCost(int64_t tokens, int64_t experts, int64_t top_k);
// Bytes T (8 E + 4); flops 5 T E (as RouterCost, and the division).
OpCost RouterProbabilitiesCost(int64_t tokens, int64_t experts);
// Bytes 12 T E + 4 E; flops 10 T E: the probabilities, two for the mean, three
// for the result.
OpCost RouterLossBackwardCost(int64_t tokens, int64_t experts);

// Bytes T (4 H + K (s H + 8)); flops 2 T K H.
OpCost SlotDotsCost(int64_t tokens, int64_t top_k, int64_t hidden, DType rows);
// Bytes N (H (s + o) + 4); flops N H.
OpCost ScaleRowsCost(int64_t rows, int64_t hidden, DType x, DType out);

// Bytes N (V (4 + o) + 12); flops 8 N V: largest, difference, exponential and
// sum; difference twice, exponential, and scale of the gradient.
OpCost CrossEntropyCost(int64_t rows, int64_t vocab, DType dlogits);
// No id twice. Bytes T (12 H + 4); flops T H.
OpCost EmbeddingBackwardCost(int64_t tokens, int64_t hidden);

// Bytes n (s + o).
OpCost CastCost(int64_t elements, DType x, DType out);
// Bytes 12 n; flops 2 n. CopyBlock that accumulates: the same bytes.
OpCost AddScaledCost(int64_t elements);
// Bytes T (k (s + o) + 8); flops T k. Random numbers are left out: they are
// integers.
OpCost DropoutCost(int64_t tokens, int64_t k, DType x, DType out);

// Bytes 4 n; flops 2 n.
OpCost SumOfSquaresCost(int64_t elements);
// Bytes 28 n; flops 14 n.
OpCost AdamWCost(int64_t elements);
// Bytes n (4 + s).
OpCost RepackCost(int64_t elements, DType dtype);

}  // namespace octet

#endif  // OCTET_KERNELS_TRAINING_COST_H_
