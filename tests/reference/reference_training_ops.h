// Every operation of kernels/training_backend.h as its formula in double
// precision with plain loops: the oracle of the backends' tests. Shapes are
// arguments or follow from sizes; nothing is checked. Gradients are held
// against finite differences of the forward formulas in
// reference_training_ops_test.cc. Copies (Cast, CopyBlock, Repack) and the two
// scalings (AddScaled, ScaleRows) have nothing to say here.
#ifndef OCTET_TESTS_REFERENCE_REFERENCE_TRAINING_OPS_H_
#define OCTET_TESTS_REFERENCE_REFERENCE_TRAINING_OPS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/training_backend.h"
#include "tests/reference/host_tensor.h"
#include "tests/reference/reference_ops.h"

namespace octet::test {

// dy [T, n], w [n, k] -> dy w [T, k].
Values MatMulBackwardInput(const Values& dy, const Values& w, int64_t k);
// x [T, k], dy [T, n] -> dy^T x [n, k].
Values MatMulBackwardWeight(const Values& x, const Values& dy, int64_t k,
                            int64_t n);

// h [T, 2F] -> silu(h[:, :F]) * h[:, F:] [T, F].
Values GatedSilu(const Values& h, int64_t ffn);
// h [T, 2F], dout [T, F] -> dh [T, 2F].
Values GatedSiluBackward(const Values& h, const Values& dout, int64_t ffn);

// x, dy [T, H], weight [H] -> dx [T, H].
Values RmsNormBackward(const Values& x, const Values& weight, double eps,
                       const Values& dy);
// x, dy [T, H] -> dweight [H].
Values RmsNormBackwardWeight(const Values& x, double eps, const Values& dy,
                             int64_t hidden);

struct AttentionGradient {
  Values dq;  // [S, N_q D]
  Values dk;  // [S, N_kv D]
  Values dv;  // [S, N_kv D]
};
// q, out, dout [S, N_q D]; keys, values [S, N_kv D], of positions 0 .. S - 1.
AttentionGradient AttentionBackward(const Values& q, const Values& keys,
                                    const Values& values, const Values& out,
                                    const Values& dout,
                                    const AttentionShape& shape);

// The inverse, which is the transpose, of Rotate.
void RotateBack(absl::Span<double> x, int64_t position, double theta);

// ids, weights, dweights [T, K] -> dlogits [T, E].
Values RouterBackward(const std::vector<int32_t>& ids, const Values& weights,
                      const Values& dweights, int64_t top_k,
                      int64_t num_experts);

struct Softmaxes {
  Values probabilities;  // [T, E]
  Values log_sums;       // [T]
};
// logits [T, E].
Softmaxes RowSoftmax(const Values& logits, int64_t num_experts);

// sum over rows of sum_e coef[e] p[e] + z_coef log_sum^2. logits [T, E].
double RouterLoss(const Values& logits, const Values& coef, double z_coef);
// Its gradient [T, E].
Values RouterLossBackward(const Values& logits, const Values& coef,
                          double z_coef);

// x [T, H], rows [N, H], slot_rows [T, K] -> [T, K].
Values SlotDots(const Values& x, const Values& rows,
                const std::vector<int32_t>& slot_rows, int64_t top_k,
                int64_t hidden);

struct Losses {
  Values losses;   // [N]
  Values dlogits;  // [N, V]
};
// logits [N, V]; targets, scales [N].
Losses CrossEntropy(const Values& logits, const std::vector<int32_t>& targets,
                    const Values& scales);

// dtable [V, H] += dx [T, H] at ids [T].
void EmbeddingBackward(const Values& dx, const std::vector<int32_t>& ids,
                       Values& dtable);

// mask / (1 - p) of row key and column: 0 or 1 / (1 - p).
double DropoutFactor(uint64_t seed, int64_t row_key, int64_t column, float p);

// Sums of squares of chunks of `chunk` elements.
Values SumOfSquares(const Values& x, int64_t chunk);

// One step in place: all [n].
void AdamW(const AdamWParams& params, const Values& grad, Values& weight,
           Values& m, Values& v);

}  // namespace octet::test

#endif  // OCTET_TESTS_REFERENCE_REFERENCE_TRAINING_OPS_H_
