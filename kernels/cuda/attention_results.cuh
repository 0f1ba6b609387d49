// What is kept of a span: folded into the spans before it in shared memory, and
// stored at the end; or stored as a partial result for the merge kernel.
#ifndef OCTET_KERNELS_CUDA_ATTENTION_RESULTS_CUH_
#define OCTET_KERNELS_CUDA_ATTENTION_RESULTS_CUH_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/attention_softmax.cuh"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/values.cuh"

namespace octet::cuda {

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

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_ATTENTION_RESULTS_CUH_
