// The f32 product: fused multiply-adds, one chain per output.
//
// 256 threads over a 128 x 128 tile. Thread (tx, ty) of 16 x 16 has the rows
// ty, ty + 16, ... and the columns 4 tx .. 4 tx + 3 of each half of the tile's
// columns; with SwiGLU the halves are gates and ups of the same indices. Reads
// from shared memory take four inputs of a row or column at once: 16 reads of
// 16 bytes for 256 multiply-adds. Strips of 16 rows that the group does not
// have are left out.
//
// Bits: an output is sum = fma(x[k], w[k], sum) in rising k, started at zero,
// over inputs padded with zeros. Nothing else enters.
#include "kernels/cuda/gemm_epilogue.cuh"
#include "kernels/cuda/gemm_kernels.h"
#include "kernels/cuda/gemm_pipeline.cuh"

namespace octet::cuda {
namespace {

constexpr int kStrips = kGemmTileRows / 16;
constexpr int kHalfCols = kGemmTileCols / 2;
constexpr int kThreadCols = 4;  // of each half
constexpr int kStagePieces = kGemmStageRowBytes / 16;

template <bool kSwiGlu>
struct ColumnMap {
  static constexpr int kOutCols = kSwiGlu ? kHalfCols : kGemmTileCols;

  __device__ static int32_t Column(int32_t r) {
    return kSwiGlu ? r % kHalfCols : r;
  }
  __device__ static bool IsUp(int32_t r) { return kSwiGlu && r >= kHalfCols; }
  // Eight threads read one piece of every fourth row at once.
  __device__ static int32_t Piece(int32_t r, int32_t piece) {
    return piece ^ (r / kThreadCols % kStagePieces);
  }
};

__device__ __forceinline__ float Dot4(float4 a, float4 b, float sum) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

// A thread's part of a tile. Map as gemm_pipeline.cuh asks.
template <bool kSwiGlu>
class F32Tile {
 public:
  using Element = float;
  using Map = ColumnMap<kSwiGlu>;

  __device__ F32Tile(const GemmArgs&, const GemmTile& tile)
      : strips_((tile.num_rows + 15) / 16) {}

  __device__ void MultiplyStage(const uint8_t* stage) {
    const uint8_t* w_part = stage + kGemmTileRows * kGemmStageRowBytes;
#pragma unroll 1
    for (int32_t piece = 0; piece < kStagePieces; ++piece) {
      float4 w[2][kThreadCols];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int c = 0; c < kThreadCols; ++c) {
          w[half][c] = Read(w_part, half * kHalfCols + Col() + c, piece);
        }
      }
#pragma unroll
      for (int strip = 0; strip < kStrips; ++strip) {
        if (strip >= strips_) break;
        const float4 x = Read(stage, 16 * strip + Row(), piece);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
          for (int c = 0; c < kThreadCols; ++c) {
            sums_[strip][half][c] = Dot4(x, w[half][c], sums_[strip][half][c]);
          }
        }
      }
    }
  }

  __device__ void Store(const GemmArgs& args, const GemmTile& tile) {
#pragma unroll
    for (int strip = 0; strip < kStrips; ++strip) {
      const int32_t row = 16 * strip + Row();
      if (row >= tile.num_rows) break;
      StoreRow(args, tile.row_begin + row, tile.col_begin + Col(),
               sums_[strip]);
    }
  }

 private:
  // The first of this thread's rows and of its columns.
  __device__ static int32_t Row() {
    return static_cast<int32_t>(threadIdx.x) / 16;
  }
  __device__ static int32_t Col() {
    return static_cast<int32_t>(threadIdx.x) % 16 * kThreadCols;
  }
  __device__ static float4 Read(const uint8_t* part, int32_t row,
                                int32_t piece) {
    return *reinterpret_cast<const float4*>(part +
                                            StageOffset<Map>(row, piece));
  }
  __device__ static void StoreRow(const GemmArgs& args, int64_t row,
                                  int32_t col, float (&sums)[2][kThreadCols]) {
    if constexpr (kSwiGlu) {
#pragma unroll
      for (int c = 0; c < kThreadCols; ++c) {
        sums[0][c] = SwiGlu(sums[0][c], sums[1][c]);
      }
      StoreRowPart(args, row, col, sums[0]);
    } else {
      StoreRowPart(args, row, col, sums[0]);
      StoreRowPart(args, row, col + kHalfCols, sums[1]);
    }
  }

  int32_t strips_;  // that have rows
  float sums_[kStrips][2][kThreadCols] = {};
};

}  // namespace

cudaError_t LaunchGemmF32(const GemmArgs& args, int num_blocks,
                          cudaStream_t stream) {
  return LaunchGemm<F32Tile>(args, num_blocks, stream);
}

cudaError_t ConfigureGemmF32(bool deep) { return ConfigureGemm<F32Tile>(deep); }

}  // namespace octet::cuda
