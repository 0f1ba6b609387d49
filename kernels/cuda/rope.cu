#include "kernels/cuda/launch.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/rope_angle.cuh"
#include "kernels/cuda/values.cuh"

namespace octet::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kHeadsPerBlock = 8;
constexpr int kBlocksPerSm = 8;  // leaves 64 registers a thread

template <int kCount, typename To>
__device__ __forceinline__ void StorePart(To* to, const float* values) {
  if constexpr (kCount == 4) {
    StoreFour(to, values);
  } else {
    StoreOne(to, *values);
  }
}

// Columns [i, i + kCount) and [D/2 + i, D/2 + i + kCount) of a head, turned by
// the angle of each pair, or as they are (values).
template <int kCount, typename To>
__device__ __forceinline__ void MoveHead(const float* from, To* to,
                                         int32_t half, int32_t i,
                                         const float* cos_sin, bool turn) {
  float low[kCount], high[kCount];
  if constexpr (kCount == 4) {
    LoadFour(from + i, low);
    LoadFour(from + half + i, high);
  } else {
    low[0] = from[i];
    high[0] = from[half + i];
  }
  if (turn) {
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      const float cosine = cos_sin[i + c];
      const float sine = cos_sin[half + i + c];
      const float x = low[c];
      low[c] = fmaf(x, cosine, -(high[c] * sine));
      high[c] = fmaf(high[c], cosine, x * sine);
    }
  }
  StorePart<kCount>(to + i, low);
  StorePart<kCount>(to + half + i, high);
}

template <typename Cache, int kCount>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    RopeAndCacheKernel(const RopeArgs args) {
  OCTET_DYNAMIC_SHARED(float, cos_sin);  // [D/2] cosines, [D/2] sines
  const int64_t token = blockIdx.x;
  const int32_t dim = args.head_dim;
  const int32_t half = dim / 2;
  const int32_t position = args.positions[token];
  for (int32_t i = threadIdx.x; i < half; i += kThreads) {
    const double2 angle = RopeCosSin(args.table, half, position, i);
    cos_sin[i] = static_cast<float>(angle.x);
    cos_sin[half + i] = static_cast<float>(angle.y);
  }
  __syncthreads();
  const int32_t num_heads = args.num_heads;
  const int32_t num_kv_heads = args.num_kv_heads;
  const int32_t all_heads = num_heads + 2 * num_kv_heads;
  const auto slot = static_cast<uint32_t>(args.slots[token]);
  const uint32_t block = slot / static_cast<uint32_t>(args.block_tokens);
  const uint32_t in_block = slot % static_cast<uint32_t>(args.block_tokens);
  const float* qkv = args.qkv + token * all_heads * dim;
  const int32_t parts = half / kCount;  // of a head
  for (int32_t at = threadIdx.x; at < kHeadsPerBlock * parts; at += kThreads) {
    const int32_t head =
        static_cast<int32_t>(blockIdx.y) * kHeadsPerBlock + at / parts;
    const int32_t i = at % parts * kCount;
    if (head >= all_heads) break;
    const float* from = qkv + int64_t{head} * dim;
    if (head < num_heads) {
      MoveHead<kCount>(from,
                       args.q_out + (token * num_heads + head) * int64_t{dim},
                       half, i, cos_sin, true);
      continue;
    }
    const bool is_key = head < num_heads + num_kv_heads;
    const int32_t kv_head = head - num_heads - (is_key ? 0 : num_kv_heads);
    Cache* cache = static_cast<Cache*>(is_key ? args.keys : args.values);
    const int64_t row =
        (int64_t{block} * num_kv_heads + kv_head) * args.block_tokens +
        in_block;
    MoveHead<kCount>(from, cache + row * dim, half, i, cos_sin, is_key);
  }
}

template <typename Cache>
cudaError_t Launch(const RopeArgs& args, cudaStream_t stream) {
  const auto address = reinterpret_cast<uintptr_t>(args.qkv) |
                       reinterpret_cast<uintptr_t>(args.q_out) |
                       reinterpret_cast<uintptr_t>(args.keys) |
                       reinterpret_cast<uintptr_t>(args.values);
  const int32_t all_heads = args.num_heads + 2 * args.num_kv_heads;
  const dim3 grid(
      static_cast<unsigned>(args.num_rows),
      static_cast<unsigned>((all_heads + kHeadsPerBlock - 1) / kHeadsPerBlock));
  const size_t shared_bytes = args.head_dim * sizeof(float);
  return address % 16 == 0 && args.head_dim % 8 == 0
             ? OCTET_LAUNCH((RopeAndCacheKernel<Cache, 4>), grid, kThreads,
                            shared_bytes, stream, args)
             : OCTET_LAUNCH((RopeAndCacheKernel<Cache, 1>), grid, kThreads,
                            shared_bytes, stream, args);
}

}  // namespace

cudaError_t LaunchRopeAndCache(const RopeArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return cudaSuccess;
  return args.cache_is_bf16 ? Launch<__nv_bfloat16>(args, stream)
                            : Launch<float>(args, stream);
}

}  // namespace octet::cuda
