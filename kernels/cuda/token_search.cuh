// Block-wide reductions over a row of tokens, and the search for the key at
// which a count or a mass is reached. All threads of a block of kTokenThreads
// call each function together and get the same result.
#ifndef OCTET_KERNELS_CUDA_TOKEN_SEARCH_CUH_
#define OCTET_KERNELS_CUDA_TOKEN_SEARCH_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/sampling_kernels.h"

namespace octet::cuda {

inline constexpr int kTokenThreads = 256;
inline constexpr int kTokenWarps = kTokenThreads / 32;

// Rises with the logit; equal for both zeros, lowest for NaN.
__device__ __forceinline__ uint32_t RankOf(float logit) {
  if (logit != logit) return 0;
  const uint32_t bits = __float_as_uint(logit + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ TokenKey KeyOf(float logit, int32_t id) {
  return static_cast<TokenKey>(RankOf(logit)) << 32 |
         ~static_cast<uint32_t>(id);
}

struct AddMass {
  __device__ __forceinline__ TokenMass operator()(TokenMass a,
                                                  TokenMass b) const {
    return a + b;
  }
};
struct LargerKey {
  __device__ __forceinline__ TokenKey operator()(TokenKey a, TokenKey b) const {
    return a > b ? a : b;
  }
};
struct SmallerKey {
  __device__ __forceinline__ TokenKey operator()(TokenKey a, TokenKey b) const {
    return a < b ? a : b;
  }
};

// values[i] over all threads, for each i.
template <int kCount, typename Combine>
__device__ __forceinline__ void BlockReduce(
    unsigned long long (&values)[kCount], Combine combine) {
  __shared__ unsigned long long partial[kTokenWarps][kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      values[i] =
          combine(values[i], __shfl_xor_sync(0xffffffffu, values[i], distance));
    }
  }
  if (threadIdx.x % 32 == 0) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) partial[threadIdx.x / 32][i] = values[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values[i] = partial[0][i];
#pragma unroll
    for (int warp = 1; warp < kTokenWarps; ++warp) {
      values[i] = combine(values[i], partial[warp][i]);
    }
  }
  __syncthreads();
}

template <typename Combine>
__device__ __forceinline__ unsigned long long BlockReduce(
    unsigned long long value, Combine combine) {
  unsigned long long values[1] = {value};
  BlockReduce(values, combine);
  return values[0];
}

// The tokens of a row from `limit` on.
struct TokenSet {
  const float* logits;
  const TokenMass* weights;
  int32_t vocab;
  TokenKey limit;

  __device__ __forceinline__ bool Has(TokenKey key) const {
    return key >= limit;
  }
};

// What a search adds up.
struct MassOf {
  __device__ __forceinline__ TokenMass operator()(const TokenSet& set,
                                                  int32_t id) const {
    return set.weights[id];
  }
};
struct DrawableCount {
  __device__ __forceinline__ TokenMass operator()(const TokenSet& set,
                                                  int32_t id) const {
    return set.weights[id] != 0;
  }
};
struct PlainCount {
  __device__ __forceinline__ TokenMass operator()(const TokenSet&,
                                                  int32_t) const {
    return 1;
  }
};

template <typename Measure>
__device__ __forceinline__ TokenMass Total(const TokenSet& set,
                                           Measure measure) {
  TokenMass sum = 0;
  for (int32_t id = threadIdx.x; id < set.vocab; id += kTokenThreads) {
    if (set.Has(KeyOf(set.logits[id], id))) sum += measure(set, id);
  }
  return BlockReduce(sum, AddMass());
}

// One half of a key, three bits at a time from `bits` down: the largest value
// such that the tokens above and at it reach `target`, where `above` counts
// what is above the interval. Begins with all higher bits known: `found`.
template <bool kIds, typename Measure>
__device__ __forceinline__ uint32_t SearchHalf(const TokenSet& set,
                                               Measure measure,
                                               TokenMass target, uint32_t rank,
                                               int bits, uint32_t found,
                                               TokenMass* above) {
  constexpr int kThresholds = 7;
  for (int shift = (bits + 2) / 3 * 3 - 3; shift >= 0; shift -= 3) {
    const uint64_t end = uint64_t{found} + (uint64_t{8} << shift);
    TokenMass sums[kThresholds] = {};
    for (int32_t id = threadIdx.x; id < set.vocab; id += kTokenThreads) {
      const TokenKey key = KeyOf(set.logits[id], id);
      const auto key_rank = static_cast<uint32_t>(key >> 32);
      if (!set.Has(key) || (kIds && key_rank != rank)) continue;
      const uint32_t half = kIds ? static_cast<uint32_t>(key) : key_rank;
      if (half < found || half >= end) continue;
      const TokenMass amount = measure(set, id);
      const uint32_t digit = (half - found) >> shift;
#pragma unroll
      for (int i = 0; i < kThresholds; ++i) {
        if (digit > static_cast<uint32_t>(i)) sums[i] += amount;
      }
    }
    BlockReduce(sums, AddMass());
    uint32_t digit = 0;
    TokenMass higher = sums[0];
#pragma unroll
    for (int i = 0; i < kThresholds; ++i) {
      if (*above + sums[i] >= target) {
        digit = i + 1;
        higher =
            i + 1 < kThresholds ? sums[i + 1 < kThresholds ? i + 1 : 0] : 0;
      }
    }
    *above += higher;
    found += digit << shift;
  }
  return found;
}

// The last key of the shortest prefix of the set that reaches `target`, which
// the whole set does, and which is at least 1.
template <typename Measure>
__device__ __forceinline__ TokenKey FindKey(const TokenSet& set,
                                            Measure measure, TokenMass target) {
  TokenMass above = 0;
  const uint32_t rank =
      SearchHalf<false>(set, measure, target, 0, 32, 0, &above);
  const int id_bits = 32 - __clz(set.vocab);
  const int known = (id_bits + 2) / 3 * 3;
  const uint32_t first = known >= 32 ? 0 : 0xffffffffu << known;
  const uint32_t low =
      SearchHalf<true>(set, measure, target, rank, id_bits, first, &above);
  return static_cast<TokenKey>(rank) << 32 | low;
}

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_TOKEN_SEARCH_CUH_
