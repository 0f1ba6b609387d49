// AttentionBackward of kernels/training_backend.h on the GPU.
//
// Two kernels, both of 8 warps, for one key/value head at a time. Queries of a
// sequence are numbered row * group + head in the group, group = N_q / N_kv.
//   dq   A warp a query: tiles of 32 keys go through shared memory, a lane a
//        key. First walk: largest score m and l = sum exp(s - m), kept with
//        delta = dout.out for the other kernel. Second walk: p = exp(s - m) /
//        l, ds = p (dout.v - delta) / sqrt(D), dq += ds k, a lane four columns.
//   dkv  A warp a key: tiles of 32 queries, a lane a query; p and ds again from
//        m, l and delta; dv += p dout, dk += ds q.
// No atomics: each output has one owner, and its sum runs over keys (queries)
// in rising order, in tiles of absolute positions. So dq's bits are those of
// its query and what it sees; dk's and dv's of the sequence. All sums in f32; a
// cache or a gradient in bf16 is widened.
//
// Cost of a sequence of S rows: 14 S^2 N_q D / 2 flops in f32 (the score three
// times, dout.v twice, three outer products), and each tile is loaded for 8
// warps only: plain, and far from a GPU's limits.
#ifndef OCTET_KERNELS_CUDA_ATTENTION_BACKWARD_H_
#define OCTET_KERNELS_CUDA_ATTENTION_BACKWARD_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/elements.h"

namespace octet::cuda {

inline constexpr int kAttentionBackwardWarps = 8;

struct AttentionBackwardSequence {
  int64_t row_begin = 0;    // of q, out, dout, dq, dk, dv
  int64_t table_begin = 0;  // in AttentionBackwardArgs::blocks
  int64_t num_rows = 0;
};

// kAttentionBackwardWarps queries, or keys, from `begin` on.
struct AttentionBackwardItem {
  int32_t sequence = 0;
  int32_t begin = 0;
};

struct AttentionBackwardArgs {
  const float* q = nullptr;  // [T, N_q D]
  ConstElements out;         // [T, N_q D]
  ConstElements dout;        // [T, N_q D]
  ConstElements keys;        // [blocks, N_kv, block_tokens, D]
  ConstElements values;      // the same
  const AttentionBackwardSequence* sequences = nullptr;
  const int32_t* blocks = nullptr;  // ids, sequence after sequence
  const AttentionBackwardItem* query_items = nullptr;
  const AttentionBackwardItem* key_items = nullptr;
  float4* state = nullptr;  // [T, N_q] scratch: m, 1 / l, delta
  float* dq = nullptr;      // [T, N_q D]
  float* dk = nullptr;      // [T, N_kv D]
  float* dv = nullptr;      // [T, N_kv D]
  int64_t num_query_items = 0;
  int64_t num_key_items = 0;
  int32_t group = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;  // D, up to kAttentionMaxHeadDim
  int32_t block_tokens = 0;
  int32_t window = 0;  // 0: none
};

// Asynchronous. Returns the error of a launch.
cudaError_t LaunchAttentionBackward(const AttentionBackwardArgs& args,
                                    cudaStream_t stream);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_ATTENTION_BACKWARD_H_
