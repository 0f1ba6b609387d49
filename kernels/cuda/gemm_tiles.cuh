// The walk over tiles, and the copies of a tile's operands into shared memory.
// Shared by the two product kernels.
#ifndef OCTET_KERNELS_CUDA_GEMM_TILES_CUH_
#define OCTET_KERNELS_CUDA_GEMM_TILES_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/gemm_kernels.h"
#include "kernels/cuda/ptx.h"

namespace octet::cuda {

// One entry of the work list.
struct GemmTile {
  const void* weights;
  int32_t row_begin;  // of x and out
  int32_t num_rows;   // 1 .. kGemmTileRows
  int32_t col_begin;  // of out
};

// The entries index, index + gridDim.x, ... of the work list; the list goes
// through groups, in a group through column blocks, and in a column block
// through row blocks, so that the blocks that run side by side read the same
// weights.
template <int kTileOutCols>
class GemmTileWalk {
 public:
  __device__ explicit GemmTileWalk(const GemmGroups& groups)
      : groups_(groups), index_(static_cast<int32_t>(blockIdx.x)) {
    FindGroup();
  }

  __device__ bool done() const { return group_ == groups_.num_groups; }

  // REQUIRES: !done().
  __device__ GemmTile tile() const {
    const int32_t rows =
        groups_.row_begin[group_ + 1] - groups_.row_begin[group_];
    const int32_t row_blocks = (rows + kGemmTileRows - 1) / kGemmTileRows;
    const int32_t local = index_ - groups_.tile_begin[group_];
    const int32_t row = local % row_blocks * kGemmTileRows;
    return {groups_.weights[group_], groups_.row_begin[group_] + row,
            min(rows - row, kGemmTileRows), local / row_blocks * kTileOutCols};
  }

  __device__ void Next() {
    index_ += static_cast<int32_t>(gridDim.x);
    FindGroup();
  }

 private:
  __device__ void FindGroup() {
    while (group_ < groups_.num_groups &&
           index_ >= groups_.tile_begin[group_ + 1]) {
      ++group_;
    }
  }

  const GemmGroups& groups_;
  int32_t index_;
  int32_t group_ = 0;
};

// Where 16 bytes of a row stand in the x or the W part of a stage.
inline constexpr int32_t kGemmPieceBytes = 16;
template <typename Map>
__device__ __forceinline__ int32_t StageOffset(int32_t row, int32_t piece) {
  return row * kGemmStageRowBytes + Map::Piece(row, piece) * kGemmPieceBytes;
}

// Copies the operands of one stage after the other, tile after tile: it runs
// ahead of the multiplication and does not stop where a tile ends.
//
// A stage is [128 rows of x][128 bytes], then [128 columns][128 bytes] of W.
// The 16-byte pieces of a row are put in an order that depends on the row
// (Map::Piece), so that the threads that read one piece of neighbouring rows
// hit different banks. Map::Column and Map::IsUp say which column of the tile
// stands in a row of the W part. Rows and columns past the end, and inputs past
// k, are zero.
//
// kAligned: rows of x begin at multiples of 16 bytes and go by cp.async; other
// rows are read element by element.
template <typename Element, typename Map, bool kAligned>
class GemmLoader {
 public:
  __device__ explicit GemmLoader(const GemmArgs& args)
      : args_(args), walk_(args.groups) {
    if (!walk_.done()) StartTile();
  }

  // Starts the copies of the next stage into `stage`; nothing after the last.
  __device__ void LoadStage(uint8_t* stage) {
    if (walk_.done()) return;
    const int32_t k = k_begin_ + Piece() * kPieceElements;
#pragma unroll
    for (int32_t pass = 0; pass < kPasses; ++pass) {
      // Of passes with no row at all nothing is read later.
      if (pass * kRowsPerPass >= tile_.num_rows) break;
      const int32_t row = Row() + pass * kRowsPerPass;
      LoadX(stage + StageOffset<Map>(row, Piece()), row, k);
    }
    stage += kGemmTileRows * kGemmStageRowBytes;
#pragma unroll
    for (int32_t pass = 0; pass < kPasses; ++pass) {
      const int32_t row = Row() + pass * kRowsPerPass;
      const int32_t column = tile_.col_begin + Map::Column(row);
      const int64_t from = Map::IsUp(row) ? args_.n + column : column;
      CpAsync16(stage + StageOffset<Map>(row, Piece()),
                weights_ + from * args_.ld + k,
                column < args_.n ? kGemmPieceBytes : 0);
    }
    k_begin_ += kStageElements;
    if (k_begin_ >= args_.k) {
      walk_.Next();
      if (!walk_.done()) StartTile();
    }
  }

 private:
  static constexpr int32_t kPieceElements = kGemmPieceBytes / sizeof(Element);
  static constexpr int32_t kPieces = kGemmStageRowBytes / kGemmPieceBytes;
  static constexpr int32_t kStageElements =
      kGemmStageRowBytes / sizeof(Element);
  static constexpr int32_t kRowsPerPass = kGemmThreads / kPieces;
  static constexpr int32_t kPasses = kGemmTileRows / kRowsPerPass;
  static_assert(kGemmTileRows == kGemmTileCols);

  // What this thread copies: one piece of every kRowsPerPass-th row.
  __device__ static int32_t Row() {
    return static_cast<int32_t>(threadIdx.x) / kPieces;
  }
  __device__ static int32_t Piece() {
    return static_cast<int32_t>(threadIdx.x) % kPieces;
  }

  __device__ void StartTile() {
    tile_ = walk_.tile();
    x_ = static_cast<const Element*>(args_.x) +
         static_cast<int64_t>(tile_.row_begin) * args_.k;
    weights_ = static_cast<const Element*>(tile_.weights);
    k_begin_ = 0;
  }

  __device__ void LoadX(uint8_t* to, int32_t row, int32_t k) const {
    const Element* from = x_ + static_cast<int64_t>(row) * args_.k + k;
    const int32_t count = row < tile_.num_rows ? args_.k - k : 0;
    if constexpr (kAligned) {
      // k is a multiple of a piece: all of it or nothing, which is an operand
      // of the instruction; other sizes would be a dozen instructions.
      CpAsync16(to, from, count > 0 ? kGemmPieceBytes : 0);
    } else {
      alignas(16) Element piece[kPieceElements];
#pragma unroll
      for (int32_t i = 0; i < kPieceElements; ++i) {
        piece[i] = i < count ? from[i] : Element{};
      }
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(piece);
    }
  }

  const GemmArgs& args_;
  GemmTileWalk<Map::kOutCols> walk_;
  GemmTile tile_;
  const Element* x_;
  const Element* weights_;
  int32_t k_begin_ = 0;
};

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_GEMM_TILES_CUH_
