// The two query rows of a lane in a block's piece: which they are, what they
// see, where they stand in q and out.
#ifndef OCTET_KERNELS_CUDA_ATTENTION_ROWS_CUH_
#define OCTET_KERNELS_CUDA_ATTENTION_ROWS_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_softmax.cuh"

namespace octet::cuda {

// The two query rows of a lane.
struct LaneRows {
  int32_t index[2];   // of the piece
  SeenRange seen[2];  // by each
};

// Whether some row of the warp sees a key of [begin, end).
__device__ __forceinline__ bool AnySees(const LaneRows& rows, int32_t begin,
                                        int32_t end) {
  bool any = false;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    any = any || (begin < rows.seen[i].end && end > rows.seen[i].begin);
  }
  return __any_sync(0xffffffffu, any);
}

// Whether all rows see all of them.
__device__ __forceinline__ bool AllSee(const LaneRows& rows, int32_t begin,
                                       int32_t end) {
  bool all = true;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    all = all && begin >= rows.seen[i].begin && end <= rows.seen[i].end;
  }
  return __all_sync(0xffffffffu, all);
}

__device__ __forceinline__ SeenRange SeenBy(const AttentionArgs& args,
                                            const AttentionPiece& piece,
                                            int32_t index) {
  const int32_t position =
      piece.first_position + (piece.query_begin + index) / args.group;
  const int32_t begin = args.window > 0 && position >= args.window
                            ? position - args.window + 1
                            : 0;
  return {begin, position + 1};
}

// Indices past the piece's queries stand for its last query: computed, not
// stored.
__device__ __forceinline__ LaneRows RowsOf(const AttentionArgs& args,
                                           const AttentionPiece& piece) {
  LaneRows rows;
  const int32_t last = piece.num_queries - 1;
  const int32_t base =
      static_cast<int32_t>(threadIdx.x) / 32 * kAttentionWarpQueries;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    rows.index[i] = base + static_cast<int32_t>(threadIdx.x) % 32 / 4 + 8 * i;
    rows.seen[i] = SeenBy(args, piece, min(rows.index[i], last));
  }
  return rows;
}

// Where the head of a query begins in q and out, in elements.
__device__ __forceinline__ int64_t HeadOffset(const AttentionArgs& args,
                                              const AttentionPiece& piece,
                                              int32_t index) {
  const int32_t query = piece.query_begin + index;
  const int64_t row = piece.row_begin + query / args.group;
  const int64_t num_heads = int64_t{args.num_kv_heads} * args.group;
  return (row * num_heads + int64_t{blockIdx.y} * args.group +
          query % args.group) *
         args.head_dim;
}

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_ATTENTION_ROWS_CUH_
