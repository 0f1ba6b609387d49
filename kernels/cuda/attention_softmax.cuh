// The running softmax of two query rows of a lane, in the fragment layout of
// mma.m16n8k16's d (ptx.h): lane l (g = l / 4, t = l % 4) holds, of 8 columns,
// 2t and 2t + 1 of the rows g (elements 0, 1) and g + 8 (elements 2, 3).
#ifndef OCTET_KERNELS_CUDA_ATTENTION_SOFTMAX_CUH_
#define OCTET_KERNELS_CUDA_ATTENTION_SOFTMAX_CUH_

#include <cuda_runtime.h>

#include <cstdint>

namespace octet::cuda {

inline constexpr float kAttentionNever = -__builtin_inff();

// What a row sees: positions [begin, end).
struct SeenRange {
  int32_t begin;
  int32_t end;
  __device__ __forceinline__ bool Has(int32_t position) const {
    return position >= begin && position < end;
  }
};

// 2^(m - largest), 0 while nothing was seen.
__device__ __forceinline__ float SoftmaxWeight(float m, float largest) {
  return exp2f(m - (largest == kAttentionNever ? 0.0f : largest));
}

// The largest (the sum) over the four lanes that share a row.
__device__ __forceinline__ float QuadMax(float value) {
  value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
  return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}
__device__ __forceinline__ float QuadSum(float value) {
  value += __shfl_xor_sync(0xffffffffu, value, 1);
  return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

// m, l and o of both rows over what was taken in so far; `l` of a lane's own
// columns.
template <int kDim>
struct SoftmaxState {
  float m[2];
  float l[2];
  float o[kDim / 8][4];

  __device__ __forceinline__ void Clear() {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      m[row] = kAttentionNever;
      l[row] = 0.0f;
    }
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) o[n][i] = 0.0f;
    }
  }
};

// Scores s of kKeys keys from `tile` on become weights p; m and l take them in,
// and o is scaled to the new m. Masked: some row does not see some key.
template <bool kMasked, int kKeys, int kDim>
__device__ __forceinline__ void SoftmaxTile(float (&s)[kKeys / 8][4],
                                            int32_t tile, float scale,
                                            const SeenRange (&seen)[2],
                                            SoftmaxState<kDim>& state) {
  const int column = 2 * (threadIdx.x % 4);
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    float largest = kAttentionNever;
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = s[n][2 * row + i];
        score *= scale;
        if (kMasked && !seen[row].Has(tile + 8 * n + column + i)) {
          score = kAttentionNever;
        }
        largest = fmaxf(largest, score);
      }
    }
    largest = fmaxf(state.m[row], QuadMax(largest));
    const float base = largest == kAttentionNever ? 0.0f : largest;
    const float correction = exp2f(state.m[row] - base);
    float sum = 0.0f;
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = s[n][2 * row + i];
        score = exp2f(score - base);
        sum += score;
      }
    }
    state.m[row] = largest;
    state.l[row] = fmaf(state.l[row], correction, sum);
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      state.o[n][2 * row] *= correction;
      state.o[n][2 * row + 1] *= correction;
    }
  }
}

template <int kKeys, int kDim>
__device__ __forceinline__ void SoftmaxTile(bool masked,
                                            float (&s)[kKeys / 8][4],
                                            int32_t tile, float scale,
                                            const SeenRange (&seen)[2],
                                            SoftmaxState<kDim>& state) {
  if (masked) {
    SoftmaxTile<true, kKeys>(s, tile, scale, seen, state);
  } else {
    SoftmaxTile<false, kKeys>(s, tile, scale, seen, state);
  }
}

// The fold of a span into what came before it: out = out * before + o * now.
struct SpanFold {
  float before;
  float now;

  __device__ __forceinline__ float operator()(float out, float o) const {
    return fmaf(out, before, o * now);
  }
};

// m and l (summed over the row) of the spans so far.
struct FoldedState {
  float m = kAttentionNever;
  float l = 0.0f;

  __device__ __forceinline__ SpanFold Fold(float span_m, float span_l) {
    const float largest = fmaxf(m, span_m);
    const SpanFold fold{SoftmaxWeight(m, largest),
                        SoftmaxWeight(span_m, largest)};
    l = fold(l, span_l);
    m = largest;
    return fold;
  }
};

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_ATTENTION_SOFTMAX_CUH_
