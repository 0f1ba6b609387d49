#include "kernels/cuda/launch.h"
#include "kernels/cuda/router.h"

namespace octet::cuda {
namespace {

constexpr int kWarpsPerBlock = 8;
constexpr unsigned kAllLanes = 0xffffffffu;

using Key = unsigned long long;  // what the warp shuffles take

// Keys rise with the logit and, where logits are equal, fall with the id. Every
// key is above 0.
__device__ Key KeyOf(float logit, int32_t id) {
  uint32_t rank = 0;  // NaN
  if (logit == logit) {
    const uint32_t bits = __float_as_uint(logit + 0.0f);  // -0 becomes +0
    rank = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  }
  return static_cast<Key>(rank) << 32 | ~static_cast<uint32_t>(id);
}

__device__ int32_t IdOf(Key key) {
  return static_cast<int32_t>(~static_cast<uint32_t>(key));
}

__device__ Key WarpMax(Key key) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    key = max(key, __shfl_xor_sync(kAllLanes, key, offset));
  }
  return key;
}

__global__ void __launch_bounds__(32 * kWarpsPerBlock)
    RouterKernel(const RouterArgs args) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % 32;
  const int64_t row = int64_t{blockIdx.x} * kWarpsPerBlock + threadIdx.x / 32;
  if (row >= args.num_rows) return;
  const float* logits = args.logits + row * args.num_experts;
  int32_t* ids = args.topk_ids + row * args.top_k;
  float* weights = args.topk_weights + row * args.top_k;

  Key last = ~Key{0};
  float largest = 0.0f;
  float sum = 0.0f;
  for (int32_t k = 0; k < args.top_k; ++k) {
    Key best = 0;
    for (int32_t e = lane; e < args.num_experts; e += 32) {
      const Key key = KeyOf(logits[e], e);
      if (key < last) best = max(best, key);
    }
    last = WarpMax(best);
    const float logit = logits[IdOf(last)];
    if (k == 0) largest = logit;
    const float weight = expf(logit - largest);
    sum += weight;
    // Written and, below, divided by the same lane.
    if (lane == k % 32) {
      ids[k] = IdOf(last);
      weights[k] = weight;
    }
  }
  for (int32_t k = lane; k < args.top_k; k += 32) weights[k] /= sum;
}

}  // namespace

cudaError_t LaunchRouter(const RouterArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return cudaSuccess;
  const int64_t blocks = (args.num_rows + kWarpsPerBlock - 1) / kWarpsPerBlock;
  return OCTET_LAUNCH(RouterKernel, static_cast<unsigned>(blocks),
                      32 * kWarpsPerBlock, 0, stream, args);
}

}  // namespace octet::cuda
