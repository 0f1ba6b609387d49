// The inner loops of the CPU backend's row-wise operations and of attention:
// one table of functions per instruction set, picked once when the backend is
// made. The loops trust their callers and know no threads; the operations
// around them (rms_norm.h, attention.h, ...) share the rows out.
//
// Bits: a function's result depends on its arguments only, and is the same for
// a row wherever it stands. bf16 travels as its bits in uint16_t.
#ifndef OCTET_KERNELS_CPU_VECTOR_KERNELS_H_
#define OCTET_KERNELS_CPU_VECTOR_KERNELS_H_

#include <cstdint>

namespace octet::cpu {

enum class Isa;  // kernels/cpu/isa.h, kept out of the per-instruction-set files

// Attention of consecutive rows of one sequence over one key/value head.
struct AttentionTask {
  const float* q = nullptr;  // first row, first head of the group; each row
                             // holds `group` heads of head_dim side by side
  int64_t q_stride = 0;      // elements from row to row
  void* out = nullptr;       // laid out as q
  int64_t out_stride = 0;
  bool out_bf16 = false;
  int num_rows = 0;
  int group = 0;  // N_q / N_kv
  int head_dim = 0;
  int64_t first_position = 0;  // of the first row
  int64_t window = 0;          // 0 = none
  // Of this key/value head: the element of position p is at block_table[p /
  // block_tokens] * block_stride + (p % block_tokens) * head_dim.
  const void* keys = nullptr;
  const void* values = nullptr;
  bool cache_bf16 = false;
  const int32_t* block_table = nullptr;
  int64_t block_stride = 0;
  int block_tokens = 0;
  float* scratch = nullptr;  // AttentionScratchFloats() of them, any contents
};

// Keys are taken in tiles of this many positions, aligned to position 0, so
// that the order of every sum is a function of absolute positions.
inline constexpr int kKeyTile = 32;

constexpr int64_t PadHeadDim(int head_dim) { return (head_dim + 15) / 16 * 16; }

// For a task of `num_queries` = num_rows * group.
constexpr int64_t AttentionScratchFloats(int64_t num_queries, int head_dim) {
  return num_queries * (2 * PadHeadDim(head_dim) + kKeyTile + 2) +
         2 * kKeyTile * PadHeadDim(head_dim);
}

struct VectorKernels {
  // out[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i], n of each.
  void (*rms_norm_f32)(const float* x, const float* weight, float eps,
                       int64_t n, float* out);
  void (*rms_norm_bf16)(const float* x, const float* weight, float eps,
                        int64_t n, uint16_t* out);
  // x and out [2 half]; out[i] = x[i] cos[i] - x[i + half] sin[i], out[i +
  // half] = x[i + half] cos[i] + x[i] sin[i].
  void (*rotate_f32)(const float* x, const float* cos, const float* sin,
                     int64_t half, float* out);
  void (*rotate_bf16)(const float* x, const float* cos, const float* sin,
                      int64_t half, uint16_t* out);
  void (*to_bf16)(const float* x, int64_t n, uint16_t* out);
  void (*from_bf16)(const uint16_t* x, int64_t n, float* out);
  // out[i] += ((w[0] rows[0][i] + w[1] rows[1][i]) + ...), fused.
  void (*combine_f32)(const float* const* rows, const float* weights,
                      int num_rows, int64_t n, float* out);
  void (*combine_bf16)(const uint16_t* const* rows, const float* weights,
                       int num_rows, int64_t n, float* out);
  // In place: x[i] = e^x[i].
  void (*exp)(float* x, int64_t n);
  // The largest of n > 0 values; *has_nan says whether one is NaN (the result
  // then means nothing).
  float (*max)(const float* x, int64_t n, bool* has_nan);
  // Sum of e^(x[i] - max), accumulated in 16 interleaved sums: equal bits for
  // every instruction set, as the next one.
  double (*sum_exp)(const float* x, int64_t n, float max);
  // out[i] = e^((x[i] - max) * factor).
  void (*exp_scaled)(const float* x, int64_t n, float max, double factor,
                     double* out);
  void (*attention)(const AttentionTask& task);
};

// `isa` must be supported by the processor.
const VectorKernels& VectorKernelsFor(Isa isa);

// Defined in vector_kernels_avx2.cc and vector_kernels_avx512.cc.
extern const VectorKernels kVectorKernelsAvx2;
extern const VectorKernels kVectorKernelsAvx512;

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_VECTOR_KERNELS_H_
