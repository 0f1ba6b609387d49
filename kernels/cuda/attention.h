// Backend::PagedAttention on the GPU.
//
// One arithmetic for decode and prefill. The queries of a key/value head
// (sequence rows times the N_q / N_kv heads that share it) go through a warp 16
// at a time; keys are taken in tiles of 64 (bf16 cache) or 32 (f32) absolute
// positions, and tiles in spans of 256. Within a span: online softmax, with m
// the largest score so far, in units of log2:
//   s = q.k log2(e) / sqrt(D);  m' = max(m, max s);  p = 2^(s - m')
//   l = l 2^(m - m') + sum p;   o = o 2^(m - m') + p V
// (Milakov and Gimelshein, 2018; Dao, 2023). Spans are then folded from the
// first to the last by the same formula: a row's bits are those of this one
// order, whether one block walks all spans (prefill) or every span has a block
// and LaunchAttentionMerge folds what they left in memory (decode). Keys that a
// row must not see have p = 0 and add an exact zero, so tiles and spans that a
// neighbour needs change nothing; a value that is not finite is kept from the
// rows that do not see it (0 * inf would be NaN). Bits depend on a row's
// position and what it sees: not on chunks, batch, block ids, block_tokens,
// splits, or the size of the GPU.
//
// bf16 cache: q and p are rounded to bf16 and both products run on tensor
// cores, mma.m16n8k16 with f32 sums; K and V come by cp.async, K of the next
// tile while p V is multiplied. f32 cache: fused multiply-adds.
//
// Work of one block: `AttentionPiece` x one key/value head x some spans. With 4
// warps a piece has 64 queries, so that a tile of K and V is read once for 64;
// with 1 warp (a decode of up to 16 queries) it has 16, and three blocks or
// more share a multiprocessor, each with up to 32 KiB of K and V under way: the
// rows of the 16 that are empty cost nothing, since such a block waits for
// memory.
//
// Cost of a piece with M queries and S keys: flops 4 M S D (twice what causal
// rows use within their last tiles); bytes 2 S D s of K and V per 64 queries,
// 4 M D + o M D of q and out, and, if split, 8 (D + 2) M S / 256 of partial
// results. For a decode with N_q / N_kv = 4 that is 4 flops a byte: bound by
// bandwidth. Shared memory at D 128: 82 KiB (45 with one warp), f32 98 KiB.
#ifndef OCTET_KERNELS_CUDA_ATTENTION_H_
#define OCTET_KERNELS_CUDA_ATTENTION_H_

#include <cuda_runtime.h>

#include <cstdint>

namespace octet::cuda {

inline constexpr int kAttentionSpan = 256;  // keys
inline constexpr int kAttentionMaxHeadDim = 128;
inline constexpr int kAttentionWarpQueries = 16;
inline constexpr int kAttentionWarps = 4;  // of a prefill block

// Up to 16 (or 64) queries of one sequence. Query i of a sequence is head i %
// group of the key/value head's group, row i / group.
struct AttentionPiece {
  int64_t row_begin = 0;       // of q and out: the sequence's row 0
  int64_t table_begin = 0;     // of the sequence, in AttentionArgs::blocks
  int64_t partial_begin = -1;  // in AttentionArgs::partial_*; -1: not split
  int32_t first_position = 0;  // of row 0
  int32_t query_begin = 0;
  int32_t num_queries = 0;
  int32_t span_begin = 0;  // the spans that its queries see
  int32_t num_spans = 0;
  int32_t padding = 0;
};

// One block's work (for each key/value head): spans of a piece.
struct AttentionItem {
  int32_t piece = 0;
  int32_t span_begin = 0;
  int32_t span_end = 0;
};

// All pointers to device memory.
struct AttentionArgs {
  const float* q = nullptr;  // [T, N_q D]
  void* out = nullptr;       // [T, N_q D] bf16 or f32
  bool out_is_bf16 = false;
  const void* keys = nullptr;    // [blocks, N_kv, block_tokens, D]
  const void* values = nullptr;  // the same
  bool cache_is_bf16 = false;    // else f32
  bool vectorised = false;       // D and addresses allow 16 byte loads
  const AttentionPiece* pieces = nullptr;
  const AttentionItem* items = nullptr;  // those of this launch
  const int32_t* blocks = nullptr;       // block tables, one after the other
  // Of a split piece, for each key/value head, span and query, from its
  // partial_begin on.
  float* partial_out = nullptr;     // [partials, D]
  float2* partial_state = nullptr;  // [partials] m, l
  int32_t group = 0;                // N_q / N_kv
  int32_t num_kv_heads = 0;         // N_kv
  int32_t head_dim = 0;             // D, even, at most kAttentionMaxHeadDim
  int32_t block_tokens = 0;
  int32_t window = 0;  // 0: none
};

// Allows the kernels the shared memory that they need; once per device.
cudaError_t ConfigureAttention();

// The items of pieces of 16 queries (num_warps 1) or 64 (kAttentionWarps).
// Asynchronous. Returns the error of the launch.
cudaError_t LaunchAttention(const AttentionArgs& args, int num_warps,
                            int32_t num_items, cudaStream_t stream);

// Folds the partial results of the split pieces among pieces[0, num_pieces).
cudaError_t LaunchAttentionMerge(const AttentionArgs& args, int32_t num_pieces,
                                 cudaStream_t stream);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_ATTENTION_H_
