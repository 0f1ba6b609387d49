// Every operation of kernels/backend.h, written as its formula in double
// precision with plain loops: the oracle of the backends' tests. Shapes are
// arguments or follow from sizes; nothing is checked.
#ifndef OCTET_TESTS_REFERENCE_REFERENCE_OPS_H_
#define OCTET_TESTS_REFERENCE_REFERENCE_OPS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "tests/reference/host_tensor.h"

namespace octet::test {

// x [T, H], weight [H] -> [T, H].
Values RmsNorm(const Values& x, const Values& weight, double eps);

// x [T, k], w [n, k] -> x w^T [T, n].
Values MatMul(const Values& x, const Values& w, int64_t k);

double Silu(double a);

// silu(x w1^T) * (x w3^T): x [T, k], w1 and w3 [F, k] -> [T, F].
Values SwiGlu(const Values& x, const Values& w1, const Values& w3, int64_t k);

// Rotates x [D] in place: pairs (i, i + D/2) by position * theta^(-2i/D).
void Rotate(absl::Span<double> x, int64_t position, double theta);

struct AttentionShape {
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int64_t window = 0;  // 0 = none
};

// q [rows, N_q D], row r at position first_position + r; keys and values [S,
// N_kv D] of positions 0 .. S - 1 -> [rows, N_q D].
Values Attention(const Values& q, const Values& keys, const Values& values,
                 const AttentionShape& shape, int64_t first_position);

struct Routing {
  std::vector<int32_t> ids;  // [K], largest first, lowest id on a tie
  Values weights;            // [K], sum 1
};
// logits [E].
Routing Route(absl::Span<const double> logits, int64_t top_k);

// log softmax of logits [V].
Values LogSoftmax(absl::Span<const double> logits);

// rows [N, H], slot_rows and weights [T, K] -> [T, H].
Values Combine(const Values& rows, const std::vector<int32_t>& slot_rows,
               const Values& weights, int64_t top_k, int64_t hidden);

}  // namespace octet::test

#endif  // OCTET_TESTS_REFERENCE_REFERENCE_OPS_H_
