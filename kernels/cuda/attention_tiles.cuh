// Tiles of keys, values and f32 queries in shared memory, and the products with
// them. A tile is rows of 16-byte chunks, chunk c of row r at place c ^ (r %
// 8), so that neither ldmatrix nor the loads of f32 meet in a bank.
//
// AttentionTile<Cache, kDim>:
//   kKeys                  keys of a tile
//   kQueryBytes            of a warp's 16 queries
//   Load                   copies those, as the product wants them
//   Scores                 s = q K^T
//   AddValues<kMasked>     o += p V
// Sums run over columns (scores) and keys (values) in rising order.
#ifndef OCTET_KERNELS_CUDA_ATTENTION_TILES_CUH_
#define OCTET_KERNELS_CUDA_ATTENTION_TILES_CUH_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/attention_softmax.cuh"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/values.cuh"

namespace octet::cuda {

// Chunk `chunk` of row `row` of a tile of rows of kChunks chunks.
template <int kChunks, typename Byte>
__device__ __forceinline__ Byte* TileChunk(Byte* tile, int row, int chunk) {
  return tile + (row * kChunks + (chunk ^ (row & 7))) * 16;
}

// Where the two query rows of a lane begin in q, and D.
struct QueryRows {
  const float* row[2];
  int32_t dim;
};

template <typename Cache, int kDim>
struct AttentionTile;

template <int kDim>
struct AttentionTile<__nv_bfloat16, kDim> {
  static constexpr int kKeys = 64;
  static constexpr int kChunks = kDim / 8;
  static constexpr int kBytes = kKeys * kChunks * 16;
  static constexpr int kQueryBytes = 16 * kChunks * 16;  // of a warp

  __device__ static __forceinline__ uint32_t LoadPair(const float* row,
                                                      int32_t dim,
                                                      int32_t column) {
    if (column >= dim) return 0;  // D is even
    const float2 pair = *reinterpret_cast<const float2*>(row + column);
    return PackBf16(pair.x, pair.y);
  }

  // A lane copies the pairs of its two rows that are its own in the fragments.
  __device__ static __forceinline__ void Load(const QueryRows& rows,
                                              unsigned char* queries) {
    const int lane = threadIdx.x % 32;
    const int column = 2 * (lane % 4);
#pragma unroll 4
    for (int chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        *reinterpret_cast<uint32_t*>(
            TileChunk<kChunks>(queries, lane / 4 + 8 * i, chunk) + 2 * column) =
            LoadPair(rows.row[i], rows.dim, 8 * chunk + column);
      }
    }
    __syncwarp();
  }

  __device__ static __forceinline__ void Scores(const unsigned char* keys,
                                                const unsigned char* queries,
                                                float (&s)[kKeys / 8][4]) {
    const int lane = threadIdx.x % 32;
    // Matrices of keys: 0-7 and 8-15 of 16, each with both halves of 16
    // columns; of queries: rows 0-7 and 8-15 with the lower half, then with the
    // upper.
    const int key = lane % 8 + lane / 16 * 8;
    const int key_half = lane / 8 % 2;
    const int query = lane % 16;
    const int query_half = lane / 16;
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) s[n][i] = 0.0f;
    }
#pragma unroll 2
    for (int step = 0; step < kDim / 16; ++step) {
      uint32_t a[4];
      LdMatrixX4(a, TileChunk<kChunks>(queries, query, 2 * step + query_half));
#pragma unroll
      for (int n = 0; n < kKeys / 8; n += 2) {
        uint32_t b[4];
        LdMatrixX4(b,
                   TileChunk<kChunks>(keys, 8 * n + key, 2 * step + key_half));
        const uint32_t first[2] = {b[0], b[1]};
        const uint32_t second[2] = {b[2], b[3]};
        MmaM16N8K16(s[n], a, first);
        MmaM16N8K16(s[n + 1], a, second);
      }
    }
  }

  // Of two packed bf16: those that are infinite or NaN become zero.
  __device__ static __forceinline__ uint32_t OnlyFinite(uint32_t pair) {
    constexpr uint32_t kLow = 0x7f80, kHigh = 0x7f800000;
    if ((pair & kLow) == kLow) pair &= 0xffff0000u;
    if ((pair & kHigh) == kHigh) pair &= 0x0000ffffu;
    return pair;
  }

  // Adds the values that are not finite to the rows that see them.
  __device__ static __forceinline__ void AddNonFinite(
      const unsigned char* values, int32_t tile, const SeenRange (&seen)[2],
      float (&o)[kDim / 8][4]) {
    const int column = 2 * (threadIdx.x % 4);
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll 1  // rare: registers matter, speed does not
      for (int key = 0; key < kKeys; ++key) {
        const uint32_t pair = *reinterpret_cast<const uint32_t*>(
            TileChunk<kChunks>(values, key, n) + 2 * column);
        const uint32_t bad = pair ^ OnlyFinite(pair);  // the others are zero
        const float first = __uint_as_float(bad << 16);
        const float second = __uint_as_float(bad & 0xffff0000u);
        if (seen[0].Has(tile + key)) {
          o[n][0] += first;
          o[n][1] += second;
        }
        if (seen[1].Has(tile + key)) {
          o[n][2] += first;
          o[n][3] += second;
        }
      }
    }
  }

  template <bool kMasked>
  __device__ static __forceinline__ void AddValues(
      const unsigned char* values, const float (&p)[kKeys / 8][4], int32_t tile,
      const SeenRange (&seen)[2], float (&o)[kDim / 8][4]) {
    const int lane = threadIdx.x % 32;
    // Matrices: keys 0-7 and 8-15 of 16, for two groups of 8 columns.
    const int row = lane % 16;
    const int group = lane / 16;
    uint32_t a[kKeys / 16][4];
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float(&pair)[4] = p[2 * step + i / 2];
        a[step][i] = PackBf16(pair[i % 2 * 2], pair[i % 2 * 2 + 1]);
      }
    }
    bool all_finite = true;
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) {
#pragma unroll
      for (int n = 0; n < kDim / 8; n += 2) {
        uint32_t b[4];
        LdMatrixX4Trans(b,
                        TileChunk<kChunks>(values, 16 * step + row, n + group));
        if constexpr (kMasked) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const uint32_t finite = OnlyFinite(b[i]);
            all_finite = all_finite && finite == b[i];
            b[i] = finite;
          }
        }
        const uint32_t first[2] = {b[0], b[1]};
        const uint32_t second[2] = {b[2], b[3]};
        MmaM16N8K16(o[n], a[step], first);
        MmaM16N8K16(o[n + 1], a[step], second);
      }
    }
    if constexpr (kMasked) {
      if (__any_sync(0xffffffffu, !all_finite)) {
        AddNonFinite(values, tile, seen, o);
      }
    }
  }
};

template <int kDim>
struct AttentionTile<float, kDim> {
  static constexpr int kKeys = 32;
  static constexpr int kChunks = kDim / 4;
  static constexpr int kBytes = kKeys * kChunks * 16;
  static constexpr int kQueryBytes = 16 * kChunks * 16;  // of a warp

  __device__ static __forceinline__ void Load(const QueryRows& rows,
                                              unsigned char* queries) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = lane / 4 + 8 * half;
      for (int column = 2 * (lane % 4); column < kDim; column += 8) {
        const float2 pair =
            column < rows.dim
                ? *reinterpret_cast<const float2*>(rows.row[half] + column)
                : make_float2(0.0f, 0.0f);
        *reinterpret_cast<float2*>(
            TileChunk<kChunks>(queries, row, column / 4) + column % 4 * 4) =
            pair;
      }
    }
    __syncwarp();
  }

  __device__ static __forceinline__ float4 Chunk(const unsigned char* tile,
                                                 int row, int chunk) {
    return *reinterpret_cast<const float4*>(
        TileChunk<kChunks>(tile, row, chunk));
  }

  __device__ static __forceinline__ float Dot(float4 a, float4 b, float sum) {
    sum = fmaf(a.x, b.x, sum);
    sum = fmaf(a.y, b.y, sum);
    sum = fmaf(a.z, b.z, sum);
    return fmaf(a.w, b.w, sum);
  }

  __device__ static __forceinline__ void Scores(const unsigned char* keys,
                                                const unsigned char* queries,
                                                float (&s)[kKeys / 8][4]) {
    const int row = threadIdx.x % 32 / 4;
    const int column = 2 * (threadIdx.x % 4);
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) s[n][i] = 0.0f;
    }
#pragma unroll 2
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const float4 low = Chunk(queries, row, chunk);
      const float4 high = Chunk(queries, row + 8, chunk);
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float4 key = Chunk(keys, 8 * n + column + i, chunk);
          s[n][i] = Dot(low, key, s[n][i]);
          s[n][2 + i] = Dot(high, key, s[n][2 + i]);
        }
      }
    }
  }

  template <bool kMasked>
  __device__ static __forceinline__ void AddValues(
      const unsigned char* values, const float (&p)[kKeys / 8][4], int32_t tile,
      const SeenRange (&seen)[2], float (&o)[kDim / 8][4]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
      // Two keys a round: their weights are with one lane of the row's four.
#pragma unroll 1
      for (int holder = 0; holder < 4; ++holder) {
        float weights[4];  // of the row for both keys, then of row + 8
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          weights[i] = __shfl_sync(0xffffffffu, p[j][i], lane / 4 * 4 + holder);
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int key = 8 * j + 2 * holder + i;
          AddKey(values, key, weights[i], weights[2 + i],
                 !kMasked || seen[0].Has(tile + key),
                 !kMasked || seen[1].Has(tile + key), o);
        }
      }
    }
  }

 private:
  // o += weight * value for the rows that see the key.
  __device__ static __forceinline__ void AddKey(const unsigned char* values,
                                                int key, float low, float high,
                                                bool low_sees, bool high_sees,
                                                float (&o)[kDim / 8][4]) {
    const int column = 2 * (threadIdx.x % 4);
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      const float2 value = *reinterpret_cast<const float2*>(
          TileChunk<kChunks>(values, key, 2 * n + column / 4) + column % 4 * 4);
      if (low_sees) {
        o[n][0] = fmaf(low, value.x, o[n][0]);
        o[n][1] = fmaf(low, value.y, o[n][1]);
      }
      if (high_sees) {
        o[n][2] = fmaf(high, value.x, o[n][2]);
        o[n][3] = fmaf(high, value.y, o[n][3]);
      }
    }
  }
};

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_ATTENTION_TILES_CUH_
