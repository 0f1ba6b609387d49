// Keys and values on their way from the cache's blocks to a tile in shared
// memory (attention_tiles.cuh).
#ifndef OCTET_KERNELS_CUDA_ATTENTION_COPY_CUH_
#define OCTET_KERNELS_CUDA_ATTENTION_COPY_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_softmax.cuh"
#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/ptx.h"

namespace octet::cuda {

// Where the keys and values of a tile's positions begin in the cache, in rows
// of D; -1 for positions that nobody sees. Two tiles' worth: this and the next.
template <int kKeys>
struct TileRows {
  int64_t at[2][kKeys];
};

// Looks up the rows of the tile's positions that lie in `used`. One thread per
// position; visible after a barrier.
template <int kKeys>
__device__ __forceinline__ void FindRows(const AttentionArgs& args,
                                         const int32_t* table, int32_t tile,
                                         const SeenRange& used, int threads,
                                         int64_t* at) {
  for (int key = threadIdx.x; key < kKeys; key += threads) {
    const int32_t position = tile + key;
    int64_t row = -1;
    if (used.Has(position)) {
      const auto place = static_cast<uint32_t>(position);
      const auto block_tokens = static_cast<uint32_t>(args.block_tokens);
      const int64_t block = table[place / block_tokens];
      row = (block * args.num_kv_heads + blockIdx.y) * args.block_tokens +
            place % block_tokens;
    }
    at[key] = row;
  }
}

// A chunk by its elements, for rows that 16 byte loads do not suit.
template <typename Cache>
__device__ __forceinline__ void CopyElements(const Cache* row, int32_t column,
                                             int32_t dim,
                                             unsigned char* shared) {
  Cache* to = reinterpret_cast<Cache*>(shared);
#pragma unroll
  for (int i = 0; i < 16 / static_cast<int>(sizeof(Cache)); ++i) {
    to[i] = column + i < dim ? row[column + i] : Cache(0.0f);
  }
}

// Starts the copy of a tile; zeros where there is no row, and past D. One
// group of cp.async.
template <typename Cache, int kDim>
__device__ __forceinline__ void StartCopy(const AttentionArgs& args,
                                          const void* cache, const int64_t* at,
                                          int threads, unsigned char* shared) {
  using Tile = AttentionTile<Cache, kDim>;
  constexpr int kPerChunk = 16 / sizeof(Cache);
  const Cache* base = static_cast<const Cache*>(cache);
#pragma unroll 4
  for (int i = threadIdx.x; i < Tile::kKeys * Tile::kChunks; i += threads) {
    const int key = i / Tile::kChunks;
    const int chunk = i % Tile::kChunks;
    const int64_t row = at[key];
    unsigned char* to = TileChunk<Tile::kChunks>(shared, key, chunk);
    const int32_t column = chunk * kPerChunk;
    const int32_t dim = row < 0 ? 0 : args.head_dim;
    const Cache* from = base + max(row, int64_t{0}) * args.head_dim;
    if (args.vectorised) {
      const bool used = column < dim;
      CpAsync16(to, used ? from + column : base, used ? 16 : 0);
    } else {
      CopyElements(from, column, dim, to);
    }
  }
  CpAsyncCommit();
}

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_ATTENTION_COPY_CUH_
