// The inner loops of the CPU backend's training operations, as a table of
// functions per instruction set: what vector_kernels.h is to serving. Same
// rules of bits.
#ifndef OCTET_KERNELS_CPU_TRAINING_KERNELS_H_
#define OCTET_KERNELS_CPU_TRAINING_KERNELS_H_

#include <cstdint>

#include "kernels/adamw_step.h"
#include "kernels/cpu/vector_kernels.h"

namespace octet::cpu {

// f32 or bf16 elements side by side.
struct ConstElements {
  const void* data;
  bool bf16;
};
struct Elements {
  void* data;
  bool bf16;
};

// Column j of a row is kept when word j % 4 of the Philox block with this key
// and counter (j / 4, row key), low words first, is `threshold` or more.
struct DropoutRow {
  uint64_t seed;
  uint64_t row_key;
  uint32_t threshold;
  float factor;  // of what is kept
};

// Attention's gradient for one key/value head of one sequence. A query is a
// (row, head of the group) pair; q, out, dout and dq hold a row's heads side by
// side from the first of the group on.
struct AttentionBackwardTask {
  const float* q = nullptr;
  ConstElements out = {};
  ConstElements dout = {};
  float* dq = nullptr;
  int64_t q_stride = 0;  // elements from row to row, of all four
  float* dk = nullptr;
  float* dv = nullptr;
  int64_t kv_stride = 0;
  int64_t num_rows = 0;
  int group = 0;
  int head_dim = 0;
  int64_t window = 0;       // 0 = none
  float* keys = nullptr;    // [PadRows(num_rows), PadHeadDim(head_dim)], padded
                            // with zeros
  float* values = nullptr;  // the same
  float* scratch = nullptr;  // AttentionBackwardScratchFloats() of them, any
                             // contents
};

// Keys of a tile, and about as many queries as are worked on at once.
inline constexpr int kBackwardKeyTile = 64;
inline constexpr int kBackwardQueries = 64;

constexpr int64_t PadRows(int64_t num_rows) {
  return (num_rows + kBackwardKeyTile - 1) / kBackwardKeyTile *
         kBackwardKeyTile;
}
constexpr int BackwardRowsAtOnce(int group) {
  return group >= kBackwardQueries ? 1 : kBackwardQueries / group;
}
// Keys and values transposed and their gradients; probabilities and gradients
// of a block of queries; its q, dout and dq; and three numbers a query.
constexpr int64_t AttentionBackwardScratchFloats(int64_t num_rows, int group,
                                                 int head_dim) {
  const int64_t rows = PadRows(num_rows);
  const int64_t dim = PadHeadDim(head_dim);
  const int64_t queries = int64_t{BackwardRowsAtOnce(group)} * group;
  return 4 * rows * dim + queries * (rows + kBackwardKeyTile + 3 * dim + 3);
}

struct TrainingKernels {
  // out = silu(gate) up, n of each.
  void (*swiglu)(ConstElements gate, ConstElements up, int64_t n, Elements out);
  // Its gradients; each may take the place of its input. out, of the dtype of
  // gate, gets silu(gate) up, unless without data.
  void (*swiglu_backward)(ConstElements gate, ConstElements up,
                          ConstElements dout, int64_t n, Elements dgate,
                          Elements dup, Elements out);
  // 1 / sqrt(mean(x^2) + eps).
  float (*inverse_rms)(const float* x, int64_t n, float eps);
  // dx += r (dy weight - x r^2 mean(dy weight x)), r = inverse_rms.
  void (*rms_norm_backward)(const float* x, const float* weight, float eps,
                            const float* dy, int64_t n, float* dx);
  // sums[i] += a[i] (scale b[i]), fused.
  void (*add_products)(const float* a, const float* b, float scale, int64_t n,
                       float* sums);
  float (*dot)(const float* x, ConstElements y, int64_t n);
  // out[i] += scale x[i], fused.
  void (*add_scaled)(const float* x, float scale, int64_t n, float* out);
  // out[i] = scale x[i].
  void (*scale)(ConstElements x, float scale, int64_t n, Elements out);
  // Sum of e^(x[i] - max).
  double (*sum_exp)(const float* x, int64_t n, float max);
  // out[i] = scale e^((x[i] - max) - log_sum).
  void (*softmax)(const float* x, int64_t n, float max, float log_sum,
                  float scale, Elements out);
  // out = x mask factor, or out += that.
  void (*dropout)(const DropoutRow& row, ConstElements x, int64_t n,
                  bool accumulate, Elements out);
  // Sum of x[i]^2.
  double (*sum_squares)(const float* x, int64_t n);
  void (*adamw)(const AdamWStep& step, const float* grad, int64_t n,
                float* weight, float* m, float* v);
  // 32 rows [32, k] as a panel of packed_matrix.h.
  void (*pack_panel_f32)(const float* rows, int64_t k, float* panel);
  void (*pack_panel_bf16)(const float* rows, int64_t k, uint16_t* panel);
  void (*attention_backward)(const AttentionBackwardTask& task);
};

// `isa` must be supported by the processor.
const TrainingKernels& TrainingKernelsFor(Isa isa);

// Defined in training_kernels_avx2.cc and training_kernels_avx512.cc.
extern const TrainingKernels kTrainingKernelsAvx2;
extern const TrainingKernels kTrainingKernelsAvx512;

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_TRAINING_KERNELS_H_
