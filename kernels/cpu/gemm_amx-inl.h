// The AMX block product over a tile policy (amx_tiles.h): up to 2 x 2 tiles of
// sums, 32 rows by the 32 outputs of a panel.
//
// A is laid out [k / 32][tile of rows][16 rows][32 bf16], so that a tile is
// 1 KiB in one piece; a tile of W is 16 steps of half a panel. A row's sum
// passes through the tiles in rising k whatever the other 15 rows hold, and a
// block of 1 row runs the same instructions as one of 16.
#ifndef OCTET_KERNELS_CPU_GEMM_AMX_INL_H_
#define OCTET_KERNELS_CPU_GEMM_AMX_INL_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/gemm_kernels.h"

namespace octet::cpu {

inline constexpr int64_t kAmxPanelStride = 128;  // bytes between steps
inline constexpr int64_t kAmxTileK = 32;         // inputs of a tile

inline void PackRowsForTiles(const void* x, int rows, int64_t k, int64_t steps,
                             std::byte* a) {
  const int tiles = (rows + kTileRows - 1) / kTileRows;
  const char* from = static_cast<const char*>(x);
  for (int64_t k_begin = 0; k_begin < 2 * steps; k_begin += kAmxTileK) {
    const int64_t left = k > k_begin ? k - k_begin : 0;
    const size_t bytes = 2 * (left < kAmxTileK ? left : kAmxTileK);
    for (int row = 0; row < tiles * kTileRows; ++row, a += kTileRowBytes) {
      const size_t filled = row < rows ? bytes : 0;
      if (filled > 0) std::memcpy(a, from + 2 * (row * k + k_begin), filled);
      std::memset(a + filled, 0, kTileRowBytes - filled);
    }
  }
}

// Tile by tile, which stays in the first-level cache while its columns are
// written as rows.
inline void PackColumnsForTiles(const ColumnSource& source, int64_t steps,
                                std::byte* a) {
  const int tiles = (source.columns + kTileRows - 1) / kTileRows;
  const uint16_t* x = static_cast<const uint16_t*>(source.data);
  uint16_t* to = reinterpret_cast<uint16_t*>(a);
  for (int64_t begin = 0; begin < 2 * steps; begin += kAmxTileK) {
    for (int tile = 0; tile < tiles; ++tile, to += kTileRows * kAmxTileK) {
      for (int i = 0; i < kAmxTileK; ++i) {
        const int64_t row = begin + i;
        for (int c = 0; c < kTileRows; ++c) {
          const int column = tile * kTileRows + c;
          const bool inside = row < source.rows && column < source.columns;
          to[c * kAmxTileK + i] = inside ? x[row * source.stride + column] : 0;
        }
      }
    }
  }
}

// Tiles 0-3 are the sums [row tile][column tile], 4-5 rows of x, 6-7 columns of
// W.
template <class Tiles, bool kTwo>
void MultiplyTiles(const BlockProduct& product) {
  constexpr int kCStride = 32 * sizeof(float);
  constexpr int kASize = kTwo ? 2 * kTileBytes : kTileBytes;
  Tiles tiles;
  float* second = product.c + kTileRows * 32;
  if (product.accumulate) {
    tiles.template Load<0>(product.c, kCStride);
    tiles.template Load<1>(product.c + 16, kCStride);
    if constexpr (kTwo) {
      tiles.template Load<2>(second, kCStride);
      tiles.template Load<3>(second + 16, kCStride);
    }
  } else {
    tiles.template Zero<0>();
    tiles.template Zero<1>();
    if constexpr (kTwo) {
      tiles.template Zero<2>();
      tiles.template Zero<3>();
    }
  }
  const std::byte* a = product.a;
  const std::byte* b = product.b;
  const std::byte* ahead = product.prefetch;
  for (int64_t step = 0; step < product.steps; step += kTileRows) {
    for (int i = 0; i < kTileRows && product.prefetch_stride != 0; ++i) {
      __builtin_prefetch(ahead + i * product.prefetch_stride);
      __builtin_prefetch(ahead + i * product.prefetch_stride + 64);
    }
    tiles.template Load<6>(b, kAmxPanelStride);
    tiles.template Load<7>(b + 64, kAmxPanelStride);
    tiles.template Load<4>(a, kTileRowBytes);
    tiles.template Dot<0, 4, 6>();
    tiles.template Dot<1, 4, 7>();
    if constexpr (kTwo) {
      tiles.template Load<5>(a + kTileBytes, kTileRowBytes);
      tiles.template Dot<2, 5, 6>();
      tiles.template Dot<3, 5, 7>();
    }
    a += kASize;
    b += kTileRows * kAmxPanelStride;
    ahead += kTileRows * product.prefetch_stride;
  }
  tiles.template Store<0>(product.c, kCStride);
  tiles.template Store<1>(product.c + 16, kCStride);
  if constexpr (kTwo) {
    tiles.template Store<2>(second, kCStride);
    tiles.template Store<3>(second + 16, kCStride);
  }
}

template <class Tiles>
void MultiplyAmx(const BlockProduct& product) {
  if (product.rows > kTileRows) {
    MultiplyTiles<Tiles, true>(product);
  } else {
    MultiplyTiles<Tiles, false>(product);
  }
}

template <class Tiles>
constexpr GemmKernels AmxKernels(const char* name) {
  return GemmKernels{.name = name,
                     .max_rows = 2 * kTileRows,
                     .one_pass_rows = 2 * kTileRows,
                     .row_quantum = kTileRows,
                     .step_quantum = kAmxTileK / 2,
                     .a_step_bytes = 4,
                     .pack_rows = &PackRowsForTiles,
                     .pack_columns = &PackColumnsForTiles,
                     .begin = &Tiles::Configure,
                     .end = &Tiles::Release,
                     .multiply = &MultiplyAmx<Tiles>};
}

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_GEMM_AMX_INL_H_
