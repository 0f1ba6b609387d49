// Backend::Router on the GPU.
//
// One warp a row; its lanes share the E logits. Each of the K choices is one
// pass over the row (from L1 after the first) and one warp reduction of 64-bit
// keys that order by logit, then by lower id; no state is kept between choices
// but the last key, so E and K are unlimited. NaN comes after minus infinity:
// the K ids of a row are distinct and in [0, E) whatever the logits.
//
// Formula: weights[k] = exp(l_k - l_0) / sum over k, which is the softmax over
// E renormalised over the K chosen; the sum runs over k in rising order. Bytes:
// 4 T E read, 8 T K written. Flops: about T K E comparisons; with E = 8, K = 2
// the launch is the cost. Bits: a row's result depends on that row only.
#ifndef OCTET_KERNELS_CUDA_ROUTER_H_
#define OCTET_KERNELS_CUDA_ROUTER_H_

#include <cuda_runtime.h>

#include <cstdint>

namespace octet::cuda {

struct RouterArgs {
  const float* logits = nullptr;  // [T, E]
  int64_t num_rows = 0;           // T
  int32_t num_experts = 0;        // E
  int32_t top_k = 0;              // K, 1 .. E
  int32_t* topk_ids = nullptr;    // [T, K], largest first
  float* topk_weights = nullptr;  // [T, K], sum 1
};

// Asynchronous. Returns the error of the launch.
cudaError_t LaunchRouter(const RouterArgs& args, cudaStream_t stream);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_ROUTER_H_
