#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_softmax.cuh"
#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/values.cuh"

namespace octet::cuda {
namespace {

constexpr int kMergeThreads = 128;

// Where the keys and values of a tile's positions begin in the cache, in rows
// of D; -1 for positions that nobody sees. Two tiles' worth: this and the next.
template <int kKeys>
struct TileRows {
  int64_t at[2][kKeys];
};

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

// Word n of this thread over the spans folded so far; word kDim / 8 is m, l of
// its first row and of its second.
template <int kDim, int kThreads>
__device__ __forceinline__ float4* FoldedWord(unsigned char* folded, int n) {
  return reinterpret_cast<float4*>(folded) + n * kThreads + threadIdx.x;
}

template <int kDim, int kThreads>
__device__ __forceinline__ void ClearFolded(unsigned char* folded) {
#pragma unroll
  for (int n = 0; n < kDim / 8; ++n) {
    *FoldedWord<kDim, kThreads>(folded, n) =
        make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  }
  *FoldedWord<kDim, kThreads>(folded, kDim / 8) =
      make_float4(kAttentionNever, 0.0f, kAttentionNever, 0.0f);
}

template <int kDim, int kThreads>
__device__ __forceinline__ void FoldSpan(const SoftmaxState<kDim>& span,
                                         unsigned char* folded) {
  float4* state = FoldedWord<kDim, kThreads>(folded, kDim / 8);
  FoldedState low_row{state->x, state->y};
  FoldedState high_row{state->z, state->w};
  const SpanFold low = low_row.Fold(span.m[0], QuadSum(span.l[0]));
  const SpanFold high = high_row.Fold(span.m[1], QuadSum(span.l[1]));
  *state = make_float4(low_row.m, low_row.l, high_row.m, high_row.l);
#pragma unroll
  for (int n = 0; n < kDim / 8; ++n) {
    float4* word = FoldedWord<kDim, kThreads>(folded, n);
    float4 out = *word;
    out.x = low(out.x, span.o[n][0]);
    out.y = low(out.y, span.o[n][1]);
    out.z = high(out.z, span.o[n][2]);
    out.w = high(out.w, span.o[n][3]);
    *word = out;
  }
}

// Columns `column` and `column` + 1 of a row of out.
__device__ __forceinline__ void StorePair(const AttentionArgs& args, int64_t at,
                                          float first, float second) {
  if (args.out_is_bf16) {
    *reinterpret_cast<uint32_t*>(static_cast<__nv_bfloat16*>(args.out) + at) =
        PackBf16(first, second);
  } else {
    *reinterpret_cast<float2*>(static_cast<float*>(args.out) + at) =
        make_float2(first, second);
  }
}

template <int kDim, int kThreads>
__device__ __forceinline__ void StoreRows(const AttentionArgs& args,
                                          const AttentionPiece& piece,
                                          const LaneRows& rows,
                                          unsigned char* folded) {
  const int32_t column = 2 * (threadIdx.x % 4);
  const float4 state = *FoldedWord<kDim, kThreads>(folded, kDim / 8);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (rows.index[i] >= piece.num_queries) continue;
    const int64_t head = HeadOffset(args, piece, rows.index[i]);
    const float l = i == 0 ? state.y : state.w;
#pragma unroll 4
    for (int n = 0; n < kDim / 8; ++n) {
      const int32_t at = 8 * n + column;
      if (at >= args.head_dim) break;
      const float4 out = *FoldedWord<kDim, kThreads>(folded, n);
      StorePair(args, head + at, (i == 0 ? out.x : out.z) / l,
                (i == 0 ? out.y : out.w) / l);
    }
  }
}

// Partial results of span `span` of a split piece, query by query.
__device__ __forceinline__ int64_t PartialOf(const AttentionPiece& piece,
                                             int32_t kv_head, int32_t span,
                                             int32_t query) {
  return piece.partial_begin +
         (int64_t{kv_head} * piece.num_spans + span - piece.span_begin) *
             piece.num_queries +
         query;
}

template <int kDim>
__device__ __forceinline__ void StorePartial(const AttentionArgs& args,
                                             const AttentionPiece& piece,
                                             const LaneRows& rows, int32_t span,
                                             const SoftmaxState<kDim>& state) {
  const int32_t column = 2 * (threadIdx.x % 4);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float l = QuadSum(state.l[i]);
    if (rows.index[i] >= piece.num_queries) continue;
    const int64_t partial = PartialOf(piece, blockIdx.y, span, rows.index[i]);
    if (column == 0) {
      args.partial_state[partial] = make_float2(state.m[i], l);
    }
    float* out = args.partial_out + partial * args.head_dim;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      if (8 * n + column >= args.head_dim) break;
      *reinterpret_cast<float2*>(out + 8 * n + column) =
          make_float2(state.o[n][2 * i], state.o[n][2 * i + 1]);
    }
  }
}

template <typename Cache, int kDim, int kWarps>
__global__ void __launch_bounds__(32 * kWarps, kWarps == 1 ? 8 : 2)
    AttentionKernel(const AttentionArgs args) {
  using Tile = AttentionTile<Cache, kDim>;
  using Layout = Shared<Cache, kDim, kWarps>;
  constexpr int kKeys = Tile::kKeys;
  constexpr int kThreads = 32 * kWarps;
  OCTET_DYNAMIC_SHARED(unsigned char, shared);
  __shared__ TileRows<kKeys> tile_rows;
  unsigned char* keys = shared + Layout::kKeyOffset;
  unsigned char* values = shared + Layout::kValueOffset;
  unsigned char* queries =
      shared + Layout::kQueryOffset + threadIdx.x / 32 * Tile::kQueryBytes;
  unsigned char* folded = shared + Layout::kFoldedOffset;

  const AttentionItem item = args.items[blockIdx.x];
  const AttentionPiece& piece = args.pieces[item.piece];
  const int32_t* table = args.blocks + piece.table_begin;
  const int32_t last = piece.num_queries - 1;
  const LaneRows rows = RowsOf(args, piece);
  const SeenRange used = {SeenBy(args, piece, 0).begin,
                          SeenBy(args, piece, last).end};
  const int32_t end = min(used.end, item.span_end * kAttentionSpan);
  const float scale =
      1.4426950408889634f / sqrtf(static_cast<float>(args.head_dim));

  Tile::Load({{args.q + HeadOffset(args, piece, min(rows.index[0], last)),
               args.q + HeadOffset(args, piece, min(rows.index[1], last))},
              args.head_dim},
             queries);
  ClearFolded<kDim, kThreads>(folded);
  SoftmaxState<kDim> state;
  state.Clear();

  int32_t tile =
      max(used.begin / kKeys * kKeys, item.span_begin * kAttentionSpan);
  int buffer = 0;
  FindRows<kKeys>(args, table, tile, used, kThreads, tile_rows.at[0]);
  __syncthreads();
  StartCopy<Cache, kDim>(args, args.keys, tile_rows.at[0], kThreads, keys);
  StartCopy<Cache, kDim>(args, args.values, tile_rows.at[0], kThreads, values);
  for (; tile < end; tile += kKeys, buffer ^= 1) {
    const int32_t next = tile + kKeys;
    int64_t* next_rows = tile_rows.at[buffer ^ 1];
    if (next < end) {
      FindRows<kKeys>(args, table, next, used, kThreads, next_rows);
    }
    CpAsyncWait<1>();
    __syncthreads();  // keys are there, and the next tile's rows
    const bool seen = AnySees(rows, tile, next);
    const bool masked = !AllSee(rows, tile, next);
    float s[kKeys / 8][4];
    if (seen) Tile::Scores(keys, queries, s);
    __syncthreads();  // nobody reads these keys any more
    if (next < end) {
      StartCopy<Cache, kDim>(args, args.keys, next_rows, kThreads, keys);
    } else {
      CpAsyncCommit();
    }
    if (seen) {
      if (masked) {
        SoftmaxTile<true, kKeys>(s, tile, scale, rows.seen, state);
      } else {
        SoftmaxTile<false, kKeys>(s, tile, scale, rows.seen, state);
      }
    }
    CpAsyncWait<1>();
    __syncthreads();  // values are there
    if (seen) {
      if (masked) {
        Tile::template AddValues<true>(values, s, tile, rows.seen, state.o);
      } else {
        Tile::template AddValues<false>(values, s, tile, rows.seen, state.o);
      }
    }
    __syncthreads();  // nobody reads these values any more
    if (next < end) {
      StartCopy<Cache, kDim>(args, args.values, next_rows, kThreads, values);
    }
    if (next % kAttentionSpan == 0 || next >= end) {
      if (piece.partial_begin >= 0) {
        StorePartial(args, piece, rows, tile / kAttentionSpan, state);
      } else {
        FoldSpan<kDim, kThreads>(state, folded);
      }
      state.Clear();
    }
  }
  if (piece.partial_begin < 0) {
    StoreRows<kDim, kThreads>(args, piece, rows, folded);
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
