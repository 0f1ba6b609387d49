#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_copy.cuh"
#include "kernels/cuda/attention_results.cuh"
#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/attention_softmax.cuh"
#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/values.cuh"

namespace octet::cuda {
namespace {

constexpr int kMergeThreads = 128;

// Dynamic shared memory, in this order.
template <typename Cache, int kDim, int kWarps>
struct Shared {
  using Tile = AttentionTile<Cache, kDim>;
  static constexpr int kKeyOffset = 0;
  static constexpr int kValueOffset = Tile::kBytes;
  static constexpr int kQueryOffset = 2 * Tile::kBytes;
  static constexpr int kFoldedOffset =
      kQueryOffset + kWarps * Tile::kQueryBytes;
  // The spans folded so far, by thread: o, then both rows' m and l, in words of
  // 16 bytes.
  static constexpr int kTotalBytes =
      kFoldedOffset + (kDim / 8 + 1) * 16 * 32 * kWarps;
};

// Where a block's parts of shared memory begin.
template <int kKeys>
struct BlockMemory {
  unsigned char* keys;
  unsigned char* values;
  unsigned char* queries;  // of this warp
  unsigned char* folded;
  TileRows<kKeys>* rows;
};

// Takes in the tiles from `tile` to `end`, span by span. The copies of a tile
// run while the one before is multiplied.
template <typename Cache, int kDim, int kWarps>
__device__ __forceinline__ void WalkTiles(
    const AttentionArgs& args, const AttentionPiece& piece,
    const LaneRows& rows, const SeenRange& used, int32_t tile, int32_t end,
    const BlockMemory<AttentionTile<Cache, kDim>::kKeys>& memory) {
  using Tile = AttentionTile<Cache, kDim>;
  constexpr int kKeys = Tile::kKeys;
  constexpr int kThreads = 32 * kWarps;
  const int32_t* table = args.blocks + piece.table_begin;
  const float scale =
      1.4426950408889634f / sqrtf(static_cast<float>(args.head_dim));
  const auto copy = [&](const void* from, const int64_t* at,
                        unsigned char* to) {
    StartCopy<Cache, kDim>(args, from, at, kThreads, to);
  };
  SoftmaxState<kDim> state;
  state.Clear();
  int64_t* next_rows = memory.rows->at[0];
  FindRows<kKeys>(args, table, tile, used, kThreads, next_rows);
  __syncthreads();
  copy(args.keys, next_rows, memory.keys);
  copy(args.values, next_rows, memory.values);
  for (int buffer = 1; tile < end; tile += kKeys, buffer ^= 1) {
    const int32_t next = tile + kKeys;
    next_rows = memory.rows->at[buffer];
    if (next < end) {
      FindRows<kKeys>(args, table, next, used, kThreads, next_rows);
    }
    CpAsyncWait<1>();
    __syncthreads();  // keys are there, and the next tile's rows
    const bool seen = AnySees(rows, tile, next);
    const bool masked = !AllSee(rows, tile, next);
    float s[kKeys / 8][4];
    if (seen) Tile::Scores(memory.keys, memory.queries, s);
    __syncthreads();  // nobody reads these keys any more
    if (next < end) {
      copy(args.keys, next_rows, memory.keys);
    } else {
      CpAsyncCommit();
    }
    if (seen) SoftmaxTile<kKeys>(masked, s, tile, scale, rows.seen, state);
    CpAsyncWait<1>();
    __syncthreads();  // values are there
    if (seen && masked) {
      Tile::template AddValues<true>(memory.values, s, tile, rows.seen,
                                     state.o);
    } else if (seen) {
      Tile::template AddValues<false>(memory.values, s, tile, rows.seen,
                                      state.o);
    }
    __syncthreads();  // nobody reads these values any more
    if (next < end) copy(args.values, next_rows, memory.values);
    if (next % kAttentionSpan != 0 && next < end) continue;
    if (piece.partial_begin >= 0) {
      StorePartial(args, piece, rows, tile / kAttentionSpan, state);
    } else {
      FoldSpan<kDim, kThreads>(state, memory.folded);
    }
    state.Clear();
  }
}

template <typename Cache, int kDim, int kWarps>
__global__ void __launch_bounds__(32 * kWarps, kWarps == 1 ? 8 : 2)
    AttentionKernel(const AttentionArgs args) {
  using Tile = AttentionTile<Cache, kDim>;
  using Layout = Shared<Cache, kDim, kWarps>;
  constexpr int kThreads = 32 * kWarps;
  OCTET_DYNAMIC_SHARED(unsigned char, shared);
  __shared__ TileRows<Tile::kKeys> tile_rows;
  const BlockMemory<Tile::kKeys> memory{
      shared + Layout::kKeyOffset, shared + Layout::kValueOffset,
      shared + Layout::kQueryOffset + threadIdx.x / 32 * Tile::kQueryBytes,
      shared + Layout::kFoldedOffset, &tile_rows};

  const AttentionItem item = args.items[blockIdx.x];
  const AttentionPiece& piece = args.pieces[item.piece];
  const int32_t last = piece.num_queries - 1;
  const LaneRows rows = RowsOf(args, piece);
  const SeenRange used = {SeenBy(args, piece, 0).begin,
                          SeenBy(args, piece, last).end};
  Tile::Load({{args.q + HeadOffset(args, piece, min(rows.index[0], last)),
               args.q + HeadOffset(args, piece, min(rows.index[1], last))},
              args.head_dim},
             memory.queries);
  ClearFolded<kDim, kThreads>(memory.folded);
  WalkTiles<Cache, kDim, kWarps>(args, piece, rows, used,
                                 max(used.begin / Tile::kKeys * Tile::kKeys,
                                     item.span_begin * kAttentionSpan),
                                 min(used.end, item.span_end * kAttentionSpan),
                                 memory);
  if (piece.partial_begin < 0) {
    StoreRows<kDim, kThreads>(args, piece, rows, memory.folded);
  }
}

// One block per split piece and key/value head; a thread folds a query's
// column.
__global__ void __launch_bounds__(kMergeThreads)
    AttentionMergeKernel(const AttentionArgs args) {
  const AttentionPiece piece = args.pieces[blockIdx.x];
  if (piece.partial_begin < 0) return;
  const int32_t dim = args.head_dim;
  for (int32_t i = threadIdx.x; i < piece.num_queries * dim;
       i += kMergeThreads) {
    const int32_t index = i / dim;
    const int32_t column = i % dim;
    FoldedState state;
    float out = 0.0f;
    for (int32_t span = 0; span < piece.num_spans; ++span) {
      const int64_t partial =
          PartialOf(piece, blockIdx.y, piece.span_begin + span, index);
      const float2 span_state = args.partial_state[partial];
      const SpanFold fold = state.Fold(span_state.x, span_state.y);
      out = fold(out, args.partial_out[partial * dim + column]);
    }
    const int64_t at = HeadOffset(args, piece, index) + column;
    if (args.out_is_bf16) {
      StoreOne(static_cast<__nv_bfloat16*>(args.out) + at, out / state.l);
    } else {
      StoreOne(static_cast<float*>(args.out) + at, out / state.l);
    }
  }
}

template <typename Cache, int kDim, int kWarps>
cudaError_t Configure() {
  void (*const kernel)(AttentionArgs) = AttentionKernel<Cache, kDim, kWarps>;
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                              cudaFuncAttributeMaxDynamicSharedMemorySize,
                              Shared<Cache, kDim, kWarps>::kTotalBytes);
}

template <typename Cache, int kDim>
cudaError_t ConfigureBoth() {
  const cudaError_t error = Configure<Cache, kDim, 1>();
  return error != cudaSuccess ? error
                              : Configure<Cache, kDim, kAttentionWarps>();
}

template <typename Cache, int kDim, int kWarps>
cudaError_t Launch(const AttentionArgs& args, int32_t num_items,
                   cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(num_items),
                  static_cast<unsigned>(args.num_kv_heads));
  return OCTET_LAUNCH((AttentionKernel<Cache, kDim, kWarps>), grid, 32 * kWarps,
                      (Shared<Cache, kDim, kWarps>::kTotalBytes), stream, args);
}

template <typename Cache, int kDim>
cudaError_t LaunchWarps(const AttentionArgs& args, int num_warps,
                        int32_t num_items, cudaStream_t stream) {
  return num_warps == 1
             ? Launch<Cache, kDim, 1>(args, num_items, stream)
             : Launch<Cache, kDim, kAttentionWarps>(args, num_items, stream);
}

template <typename Cache>
cudaError_t LaunchDim(const AttentionArgs& args, int num_warps,
                      int32_t num_items, cudaStream_t stream) {
  return args.head_dim <= 64
             ? LaunchWarps<Cache, 64>(args, num_warps, num_items, stream)
             : LaunchWarps<Cache, kAttentionMaxHeadDim>(args, num_warps,
                                                        num_items, stream);
}

}  // namespace

cudaError_t ConfigureAttention() {
  for (const auto configure :
       {&ConfigureBoth<__nv_bfloat16, 64>,
        &ConfigureBoth<__nv_bfloat16, kAttentionMaxHeadDim>,
        &ConfigureBoth<float, 64>,
        &ConfigureBoth<float, kAttentionMaxHeadDim>}) {
    const cudaError_t error = configure();
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t LaunchAttention(const AttentionArgs& args, int num_warps,
                            int32_t num_items, cudaStream_t stream) {
  if (num_items == 0) return cudaSuccess;
  return args.cache_is_bf16
             ? LaunchDim<__nv_bfloat16>(args, num_warps, num_items, stream)
             : LaunchDim<float>(args, num_warps, num_items, stream);
}

cudaError_t LaunchAttentionMerge(const AttentionArgs& args, int32_t num_pieces,
                                 cudaStream_t stream) {
  if (num_pieces == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(num_pieces),
                  static_cast<unsigned>(args.num_kv_heads));
  return OCTET_LAUNCH(AttentionMergeKernel, grid, kMergeThreads, 0, stream,
                      args);
}

}  // namespace octet::cuda
