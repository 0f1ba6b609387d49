// The bf16 product: mma.sync m16n8k16 on tensor cores, f32 sums.
//
// 8 warps, 2 over the rows by 4 over the columns of a 128 x 128 tile: each warp
// 64 rows (4 strips of 16) by 32 columns (4 units of 8), that is 16
// instructions of 16 x 8 x 16 for 6 ldmatrix.x4. Strips without a row of the
// group are left out, so a decode step's tile costs one strip; the tile stays
// what it is.
//
// Bits: an output is the chain of its k / 16 instructions in rising k, started
// at zero, over inputs padded with zeros. Nothing else enters.
#include "kernels/cuda/gemm_epilogue.cuh"
#include "kernels/cuda/gemm_kernels.h"
#include "kernels/cuda/gemm_pipeline.cuh"
#include "kernels/cuda/ptx.h"

namespace octet::cuda {
namespace {

constexpr int kStrips = 4;  // of 16 rows, of a warp
constexpr int kUnits = 4;   // of 8 columns, of a warp
constexpr int kWarpRows = 16 * kStrips;
constexpr int kWarpCols = 8 * kUnits;
constexpr int kWarpsOverCols = kGemmTileCols / kWarpCols;
constexpr int kStageSteps = kGemmStageRowBytes / 32;  // of 16 inputs

// Which column of the tile stands in row r of a stage's W part. The
// instruction gives a lane two neighbouring columns of each unit; this order
// makes the columns that a lane gets from its units neighbours in `out`: eight
// of them, or with SwiGLU four gates (units 0 and 1) and the four ups that
// belong to them (units 2 and 3).
template <bool kSwiGlu>
struct ColumnMap {
  static constexpr int kOutCols = kSwiGlu ? kGemmTileCols / 2 : kGemmTileCols;

  __device__ static int32_t Column(int32_t r) {
    const int32_t unit = r / 8 % kUnits;
    const int32_t lane = r % 8 / 2;  // of the four that share a row
    if constexpr (kSwiGlu) {
      return r / kWarpCols * (kWarpCols / 2) + 4 * lane + 2 * (unit % 2) +
             r % 2;
    } else {
      return r / kWarpCols * kWarpCols + 8 * lane + 2 * unit + r % 2;
    }
  }
  __device__ static bool IsUp(int32_t r) { return kSwiGlu && r / 16 % 2 == 1; }
  // ldmatrix reads one piece of 8 neighbouring rows at once.
  __device__ static int32_t Piece(int32_t r, int32_t piece) {
    return piece ^ (r % 8);
  }
};

// A warp's part of a tile. Map as gemm_pipeline.cuh asks.
template <bool kSwiGlu>
class Bf16Tile {
 public:
  using Element = uint16_t;
  using Map = ColumnMap<kSwiGlu>;

  __device__ Bf16Tile(const GemmArgs& args, const GemmTile& tile)
      : strips_(min((tile.num_rows - WarpRow() + 15) / 16, kStrips)) {
    if (tile.col_begin + OutCol() >= args.n) strips_ = 0;
  }

  __device__ void MultiplyStage(const uint8_t* stage) {
    if (strips_ == kStrips) {
      Multiply<true>(stage);
    } else {
      Multiply<false>(stage);
    }
  }

  __device__ void Store(const GemmArgs& args, const GemmTile& tile) {
    const int32_t col = tile.col_begin + OutCol();
#pragma unroll
    for (int strip = 0; strip < kStrips; ++strip) {
      if (strip >= strips_) break;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int32_t row = WarpRow() + 16 * strip + 8 * half + Lane() / 4;
        if (row < tile.num_rows) {
          StoreRow(args, tile.row_begin + row, col, half, sums_[strip]);
        }
      }
    }
  }

 private:
  __device__ static int32_t Lane() {
    return static_cast<int32_t>(threadIdx.x) % 32;
  }
  __device__ static int32_t WarpRow() {
    return static_cast<int32_t>(threadIdx.x) / 32 / kWarpsOverCols * kWarpRows;
  }
  __device__ static int32_t WarpCol() {
    return static_cast<int32_t>(threadIdx.x) / 32 % kWarpsOverCols;
  }
  __device__ static int32_t OutCol() {
    return WarpCol() * (Map::kOutCols / kWarpsOverCols);
  }

  // kAll: all strips have rows, which lets the compiler order the loads freely.
  template <bool kAll>
  __device__ __forceinline__ void Multiply(const uint8_t* stage) {
    // The rows and the halves of 16 inputs whose addresses this lane gives.
    const int32_t x_row = WarpRow() + Lane() % 16;
    const int32_t x_half = Lane() / 16;
    const int32_t w_row = WarpCol() * kWarpCols + Lane() / 16 * 8 + Lane() % 8;
    const int32_t w_half = Lane() / 8 % 2;
    const uint8_t* w_part = stage + kGemmTileRows * kGemmStageRowBytes;
#pragma unroll
    for (int step = 0; step < kStageSteps; ++step) {
      uint32_t w[kUnits / 2][4];
#pragma unroll
      for (int pair = 0; pair < kUnits / 2; ++pair) {
        LdMatrixX4(w[pair], w_part + StageOffset<Map>(16 * pair + w_row,
                                                      2 * step + w_half));
      }
#pragma unroll
      for (int strip = 0; strip < kStrips; ++strip) {
        if (!kAll && strip >= strips_) break;
        uint32_t x[4];
        LdMatrixX4(
            x, stage + StageOffset<Map>(16 * strip + x_row, 2 * step + x_half));
#pragma unroll
        for (int unit = 0; unit < kUnits; ++unit) {
          const uint32_t w_unit[2] = {w[unit / 2][unit % 2 * 2],
                                      w[unit / 2][unit % 2 * 2 + 1]};
          MmaM16N8K16(sums_[strip][unit], x, w_unit);
        }
      }
    }
  }

  // This lane's columns of one row: half 0 or 1 of a strip's fragments.
  __device__ static void StoreRow(const GemmArgs& args, int64_t row,
                                  int32_t col, int half,
                                  const float (&sums)[kUnits][4]) {
    if constexpr (kSwiGlu) {
      float values[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        values[i] = SwiGlu(sums[i / 2][2 * half + i % 2],
                           sums[2 + i / 2][2 * half + i % 2]);
      }
      StoreRowPart(args, row, col + Lane() % 4 * 4, values);
    } else {
      float values[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) values[i] = sums[i / 2][2 * half + i % 2];
      StoreRowPart(args, row, col + Lane() % 4 * 8, values);
    }
  }

  int32_t strips_;  // with rows and columns to compute; may be below zero
  float sums_[kStrips][kUnits][4] = {};  // fragments, see ptx.h
};

}  // namespace

cudaError_t LaunchGemmBf16(const GemmArgs& args, int num_blocks,
                           cudaStream_t stream) {
  return LaunchGemm<Bf16Tile>(args, num_blocks, stream);
}

cudaError_t ConfigureGemmBf16(bool deep) {
  return ConfigureGemm<Bf16Tile>(deep);
}

}  // namespace octet::cuda
