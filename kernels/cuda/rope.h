// Backend::RopeAndCache on the GPU.
//
// A block of 128 threads takes one token and 8 of its N_q + 2 N_kv heads, so
// that a single token keeps several multiprocessors busy; a thread takes four
// pairs (i, i + D/2), 16 bytes of each half, or one where D is no multiple of
// 8. Bytes: 4 T (N_q + 2 N_kv) D read, 4 T N_q D + 2 s T N_kv D written, s the
// cache's element size, and 24 D per token and block of tables from the
// second-level cache: bound by bandwidth.
//
// Angles. position * theta^(-2i/D) with cos and sin in double, for any
// position of 31 bits, which the host does not see. The position's bits are
// three digits of 11, 11 and 9; for each digit and pair a table holds cos and
// sin of digit * 2^shift * theta^(-2i/D), computed on the host in double, and
// the angle's are the complex product of the three, in double: an error of some
// 3 * 2^-53, rounded to f32 once, as in the CPU backend.
//
// Bits: of each token and head alone.
#ifndef OCTET_KERNELS_CUDA_ROPE_H_
#define OCTET_KERNELS_CUDA_ROPE_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

namespace octet::cuda {

// Digits of a position, lowest first, and where their rows begin.
inline constexpr int kRopeDigits = 3;
inline constexpr int kRopeShift[kRopeDigits] = {0, 11, 22};
inline constexpr int kRopeDigitRows[kRopeDigits] = {2048, 2048, 512};
inline constexpr int kRopeFirstRow[kRopeDigits] = {0, 2048, 4096};
inline constexpr int kRopeTableRows = 4608;

struct RopeArgs {
  const float* qkv = nullptr;          // [T, (N_q + 2 N_kv) D]
  const int32_t* positions = nullptr;  // [T], each >= 0
  const int64_t* slots = nullptr;      // [T], all different, below 2^31
  const double2* table = nullptr;      // [kRopeTableRows, D/2] (cos, sin)
  float* q_out = nullptr;              // [T, N_q D]
  void* keys = nullptr;                // [blocks, N_kv, block_tokens, D]
  void* values = nullptr;              // the same
  bool cache_is_bf16 = false;          // else f32
  int64_t num_rows = 0;                // T
  int32_t num_heads = 0;               // N_q
  int32_t num_kv_heads = 0;            // N_kv
  int32_t head_dim = 0;                // D, even
  int32_t block_tokens = 0;
};

// The table for these parameters, as doubles cos, sin, cos, sin ...: [
// kRopeTableRows, D/2, 2].
std::vector<double> RopeTable(float theta, int head_dim);

// Asynchronous. Returns the error of the launch.
cudaError_t LaunchRopeAndCache(const RopeArgs& args, cudaStream_t stream);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_ROPE_H_
