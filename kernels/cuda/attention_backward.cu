#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_backward.h"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/launch.h"

namespace octet::cuda {
namespace {

constexpr int kWarps = kAttentionBackwardWarps;
constexpr int kThreads = 32 * kWarps;
constexpr int kTile = 32;  // keys or queries: one a lane
constexpr int kColumns = kAttentionMaxHeadDim / 32;  // of a lane
constexpr unsigned kAllLanes = 0xffffffffu;

// Floats of shared memory, in this order: two tiles, the warps' two rows, and
// the warps' two weights of a tile's rows.
struct Shared {
  float* first;       // [kTile, D + 1]
  float* second;      // [kTile, D + 1]
  float* own_first;   // [D], of this warp
  float* own_second;  // [D]
  float* weights;     // [2, kTile], of this warp
};

size_t SharedBytes(int32_t dim) {
  return sizeof(float) *
         (2 * kTile * (dim + 1) + 2 * kWarps * dim + 2 * kWarps * kTile);
}

__device__ __forceinline__ Shared SharedOf(float* base, int32_t dim) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  Shared shared;
  shared.first = base;
  shared.second = base + kTile * (dim + 1);
  float* rows = shared.second + kTile * (dim + 1);
  shared.own_first = rows + 2 * warp * dim;
  shared.own_second = shared.own_first + dim;
  shared.weights = rows + 2 * kWarps * dim + 2 * kTile * warp;
  return shared;
}

__device__ __forceinline__ float Dot(const float* a, const float* b,
                                     int32_t dim) {
  float sum = 0.0f;
  for (int32_t d = 0; d < dim; ++d) sum = fmaf(a[d], b[d], sum);
  return sum;
}

// Where position `at` of the sequence lies in the cache.
__device__ __forceinline__ int64_t
CacheRow(const AttentionBackwardArgs& args,
         const AttentionBackwardSequence& sequence, int64_t at) {
  const int64_t block =
      args.blocks[sequence.table_begin + at / args.block_tokens];
  return ((block * args.num_kv_heads + blockIdx.y) * args.block_tokens +
          at % args.block_tokens) *
         args.head_dim;
}
// Where query `at` of the sequence lies in q, out and dout, in heads.
__device__ __forceinline__ int64_t
QueryRow(const AttentionBackwardArgs& args,
         const AttentionBackwardSequence& sequence, int64_t at) {
  return ((sequence.row_begin + at / args.group) * args.num_kv_heads +
          blockIdx.y) *
             args.group +
         at % args.group;
}

// The first key that a row sees, and the row after the last that sees a key.
__device__ __forceinline__ int64_t FirstKey(const AttentionBackwardArgs& args,
                                            int64_t row) {
  return args.window > 0 && row >= args.window ? row - args.window + 1 : 0;
}
__device__ __forceinline__ int64_t RowsEnd(const AttentionBackwardArgs& args,
                                           int64_t num_rows, int64_t key) {
  return args.window > 0 && key + args.window < num_rows ? key + args.window
                                                         : num_rows;
}

__device__ __forceinline__ void LoadKeys(
    const AttentionBackwardArgs& args,
    const AttentionBackwardSequence& sequence, int64_t tile,
    const Shared& shared) {
  const int32_t dim = args.head_dim;
  for (int32_t i = threadIdx.x; i < kTile * dim; i += kThreads) {
    const int32_t row = i / dim;
    const int32_t col = i % dim;
    const bool there = tile + row < sequence.num_rows;
    const int64_t at =
        there ? CacheRow(args, sequence, tile + row) + col : int64_t{0};
    const int32_t to = row * (dim + 1) + col;
    shared.first[to] = there ? LoadAt(args.keys, at) : 0.0f;
    shared.second[to] = there ? LoadAt(args.values, at) : 0.0f;
  }
}

__device__ __forceinline__ void LoadQueries(
    const AttentionBackwardArgs& args,
    const AttentionBackwardSequence& sequence, int64_t tile,
    const Shared& shared) {
  const int32_t dim = args.head_dim;
  const int64_t num_queries = sequence.num_rows * args.group;
  for (int32_t i = threadIdx.x; i < kTile * dim; i += kThreads) {
    const int32_t row = i / dim;
    const int32_t col = i % dim;
    const bool there = tile + row < num_queries;
    const int64_t at =
        there ? QueryRow(args, sequence, tile + row) * dim + col : int64_t{0};
    const int32_t to = row * (dim + 1) + col;
    shared.first[to] = there ? args.q[at] : 0.0f;
    shared.second[to] = there ? LoadAt(args.dout, at) : 0.0f;
  }
}

// sums[c] += sum over rows [begin, end) of the tile of weights[row] tile[row,
// lane + 32 c].
__device__ __forceinline__ void AddRows(const float* tile, const float* weights,
                                        int begin, int end, int32_t dim,
                                        float (&sums)[kColumns]) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % 32;
  for (int row = begin; row < end; ++row) {
    const float weight = weights[row];
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (lane + 32 * c < dim) {
        sums[c] = fmaf(weight, tile[row * (dim + 1) + lane + 32 * c], sums[c]);
      }
    }
  }
}

__device__ __forceinline__ void StoreSums(float* to, int32_t dim,
                                          const float (&sums)[kColumns]) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % 32;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    if (lane + 32 * c < dim) to[lane + 32 * c] = sums[c];
  }
}

__device__ __forceinline__ int WithinTile(int64_t offset) {
  return static_cast<int>(offset < 0 ? 0 : offset < kTile ? offset : kTile);
}

struct SoftmaxState {
  float max;
  float inverse;  // 1 / sum exp(s - max)
};

// First walk: the lanes' maxima and sums over tiles [begin, end), folded.
__device__ SoftmaxState WalkScores(const AttentionBackwardArgs& args,
                                   const AttentionBackwardSequence& sequence,
                                   const Shared& shared, int64_t begin,
                                   int64_t end, int64_t first_key, int64_t row,
                                   float scale) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % 32;
  const int32_t dim = args.head_dim;
  float max = -INFINITY;
  float sum = 0.0f;
  for (int64_t tile = begin; tile < end; tile += kTile) {
    LoadKeys(args, sequence, tile, shared);
    __syncthreads();
    if (tile + lane >= first_key && tile + lane <= row) {
      const float score =
          scale * Dot(shared.own_first, shared.first + lane * (dim + 1), dim);
      const float larger = fmaxf(max, score);
      sum = fmaf(sum, expf(max - larger), expf(score - larger));
      max = larger;
    }
    __syncthreads();
  }
  float all = max;
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    all = fmaxf(all, __shfl_xor_sync(kAllLanes, all, distance));
  }
  return {all, 1.0f / WarpSum(sum * expf(max - all))};
}

__global__ void __launch_bounds__(kThreads, 2)
    AttentionQueryKernel(const AttentionBackwardArgs args) {
  OCTET_DYNAMIC_SHARED(float, base);
  const int32_t dim = args.head_dim;
  const Shared shared = SharedOf(base, dim);
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % 32;
  const int32_t item_begin = args.query_items[blockIdx.x].begin;
  const AttentionBackwardSequence& sequence =
      args.sequences[args.query_items[blockIdx.x].sequence];
  const int64_t num_queries = sequence.num_rows * args.group;
  const int64_t query = int64_t{item_begin} + threadIdx.x / 32;
  const bool there = query < num_queries;
  // A warp without a query sees no key.
  const int64_t row = there ? query / args.group : -1;
  const int64_t first_key = there ? FirstKey(args, row) : 0;
  const int64_t last_query = item_begin + kWarps < num_queries
                                 ? item_begin + kWarps - 1
                                 : num_queries - 1;
  const int64_t begin = FirstKey(args, item_begin / args.group) / kTile * kTile;
  const int64_t end = last_query / args.group + 1;
  const int64_t at = there ? QueryRow(args, sequence, query) : 0;
  float delta = 0.0f;
  for (int32_t d = lane; d < dim; d += 32) {
    const float gradient = there ? LoadAt(args.dout, at * dim + d) : 0.0f;
    shared.own_first[d] = there ? args.q[at * dim + d] : 0.0f;
    shared.own_second[d] = gradient;
    if (there) delta = fmaf(gradient, LoadAt(args.out, at * dim + d), delta);
  }
  delta = WarpSum(delta);
  __syncwarp();
  const float scale = 1.0f / sqrtf(static_cast<float>(dim));
  const SoftmaxState state =
      WalkScores(args, sequence, shared, begin, end, first_key, row, scale);
  float dq[kColumns] = {};
  for (int64_t tile = begin; tile < end; tile += kTile) {
    LoadKeys(args, sequence, tile, shared);
    __syncthreads();
    if (tile + lane >= first_key && tile + lane <= row) {
      const float* key = shared.first + lane * (dim + 1);
      const float* value = shared.second + lane * (dim + 1);
      const float score = scale * Dot(shared.own_first, key, dim);
      const float p = expf(score - state.max) * state.inverse;
      shared.weights[lane] =
          p * (Dot(shared.own_second, value, dim) - delta) * scale;
    }
    __syncwarp();
    AddRows(shared.first, shared.weights, WithinTile(first_key - tile),
            WithinTile(row + 1 - tile), dim, dq);
    __syncthreads();
  }
  if (!there) return;
  StoreSums(args.dq + at * dim, dim, dq);
  if (lane == 0) {
    args.state[at] = make_float4(state.max, state.inverse, delta, 0.0f);
  }
}

__global__ void __launch_bounds__(kThreads, 2)
    AttentionKeyKernel(const AttentionBackwardArgs args) {
  OCTET_DYNAMIC_SHARED(float, base);
  const int32_t dim = args.head_dim;
  const Shared shared = SharedOf(base, dim);
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % 32;
  const int32_t item_begin = args.key_items[blockIdx.x].begin;
  const AttentionBackwardSequence& sequence =
      args.sequences[args.key_items[blockIdx.x].sequence];
  const int64_t num_rows = sequence.num_rows;
  const int64_t key = int64_t{item_begin} + threadIdx.x / 32;
  const bool there = key < num_rows;
  const int64_t last_key =
      item_begin + kWarps < num_rows ? item_begin + kWarps - 1 : num_rows - 1;
  // The queries that see the key; none without one.
  const int64_t first = there ? key * args.group : 0;
  const int64_t last = there ? RowsEnd(args, num_rows, key) * args.group : 0;
  const int64_t begin = int64_t{item_begin} * args.group / kTile * kTile;
  const int64_t end = RowsEnd(args, num_rows, last_key) * args.group;
  const int64_t at = there ? CacheRow(args, sequence, key) : 0;
  for (int32_t d = lane; d < dim; d += 32) {
    shared.own_first[d] = there ? LoadAt(args.keys, at + d) : 0.0f;
    shared.own_second[d] = there ? LoadAt(args.values, at + d) : 0.0f;
  }
  const float scale = 1.0f / sqrtf(static_cast<float>(dim));
  float dk[kColumns] = {};
  float dv[kColumns] = {};
  for (int64_t tile = begin; tile < end; tile += kTile) {
    LoadQueries(args, sequence, tile, shared);
    __syncthreads();
    if (tile + lane >= first && tile + lane < last) {
      const float4 state = args.state[QueryRow(args, sequence, tile + lane)];
      const float* query = shared.first + lane * (dim + 1);
      const float* gradient = shared.second + lane * (dim + 1);
      const float score = scale * Dot(query, shared.own_first, dim);
      const float p = expf(score - state.x) * state.y;
      shared.weights[lane] = p;
      shared.weights[kTile + lane] =
          p * (Dot(gradient, shared.own_second, dim) - state.z) * scale;
    }
    __syncwarp();
    const int row_begin = WithinTile(first - tile);
    const int row_end = WithinTile(last - tile);
    AddRows(shared.second, shared.weights, row_begin, row_end, dim, dv);
    AddRows(shared.first, shared.weights + kTile, row_begin, row_end, dim, dk);
    __syncthreads();
  }
  if (!there) return;
  const int64_t to =
      ((sequence.row_begin + key) * args.num_kv_heads + blockIdx.y) * dim;
  StoreSums(args.dk + to, dim, dk);
  StoreSums(args.dv + to, dim, dv);
}

}  // namespace

cudaError_t LaunchAttentionBackward(const AttentionBackwardArgs& args,
                                    cudaStream_t stream) {
  const auto heads = static_cast<unsigned>(args.num_kv_heads);
  const size_t shared_bytes = SharedBytes(args.head_dim);
  const cudaError_t error =
      OCTET_LAUNCH(AttentionQueryKernel,
                   dim3(static_cast<unsigned>(args.num_query_items), heads),
                   kThreads, shared_bytes, stream, args);
  if (error != cudaSuccess) return error;
  return OCTET_LAUNCH(AttentionKeyKernel,
                      dim3(static_cast<unsigned>(args.num_key_items), heads),
                      kThreads, shared_bytes, stream, args);
}

}  // namespace octet::cuda
