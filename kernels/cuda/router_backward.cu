#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/router_backward.h"

namespace octet::cuda {
namespace {

constexpr int kThreads = 128;

__device__ __forceinline__ int64_t Row() {
  return int64_t{blockIdx.x} * kThreads + threadIdx.x;
}

struct Softmax {
  float max;
  float sum;  // of exp(logit - max)
};

__device__ Softmax SoftmaxOf(const float* logits, int64_t num_experts) {
  Softmax softmax{logits[0], 0.0f};
  for (int64_t e = 1; e < num_experts; ++e) {
    softmax.max = fmaxf(softmax.max, logits[e]);
  }
  for (int64_t e = 0; e < num_experts; ++e) {
    softmax.sum += expf(logits[e] - softmax.max);
  }
  return softmax;
}

__global__ void __launch_bounds__(kThreads)
    RouterBackwardKernel(const RouterBackwardArgs args) {
  const int64_t row = Row();
  if (row >= args.num_rows) return;
  const float* weights = args.topk_weights + row * args.top_k;
  const float* dweights = args.dweights + row * args.top_k;
  float* dlogits = args.dlogits + row * args.num_experts;
  for (int64_t e = 0; e < args.num_experts; ++e) dlogits[e] = 0.0f;
  float mean = 0.0f;
  for (int64_t k = 0; k < args.top_k; ++k) mean += weights[k] * dweights[k];
  for (int64_t k = 0; k < args.top_k; ++k) {
    dlogits[args.topk_ids[row * args.top_k + k]] =
        weights[k] * (dweights[k] - mean);
  }
}

__global__ void __launch_bounds__(kThreads)
    RouterProbabilitiesKernel(const float* logits, float* probabilities,
                              float* log_sums, const int64_t num_rows,
                              const int64_t num_experts) {
  const int64_t row = Row();
  if (row >= num_rows) return;
  const float* from = logits + row * num_experts;
  float* to = probabilities + row * num_experts;
  const Softmax softmax = SoftmaxOf(from, num_experts);
  for (int64_t e = 0; e < num_experts; ++e) {
    to[e] = expf(from[e] - softmax.max) / softmax.sum;
  }
  log_sums[row] = softmax.max + logf(softmax.sum);
}

__global__ void __launch_bounds__(kThreads)
    RouterLossBackwardKernel(const float* logits, const float* coef,
                             const float z_coef, float* dlogits,
                             const int64_t num_rows,
                             const int64_t num_experts) {
  const int64_t row = Row();
  if (row >= num_rows) return;
  const float* from = logits + row * num_experts;
  float* to = dlogits + row * num_experts;
  const Softmax softmax = SoftmaxOf(from, num_experts);
  float mean = 0.0f;
  for (int64_t e = 0; e < num_experts; ++e) {
    mean += coef[e] * (expf(from[e] - softmax.max) / softmax.sum);
  }
  const float log_sum = softmax.max + logf(softmax.sum);
  const float shift = 2.0f * z_coef * log_sum - mean;
  for (int64_t e = 0; e < num_experts; ++e) {
    const float p = expf(from[e] - softmax.max) / softmax.sum;
    to[e] += p * (coef[e] + shift);
  }
}

}  // namespace

cudaError_t LaunchRouterBackward(const RouterBackwardArgs& args,
                                 cudaStream_t stream) {
  if (args.num_rows == 0) return cudaSuccess;
  return OCTET_LAUNCH(RouterBackwardKernel, BlocksFor(args.num_rows, kThreads),
                      kThreads, 0, stream, args);
}

cudaError_t LaunchRouterProbabilities(const float* logits, float* probabilities,
                                      float* log_sums, int64_t num_rows,
                                      int64_t num_experts,
                                      cudaStream_t stream) {
  if (num_rows == 0) return cudaSuccess;
  return OCTET_LAUNCH(RouterProbabilitiesKernel, BlocksFor(num_rows, kThreads),
                      kThreads, 0, stream, logits, probabilities, log_sums,
                      num_rows, num_experts);
}

cudaError_t LaunchRouterLossBackward(const float* logits, const float* coef,
                                     float z_coef, float* dlogits,
                                     int64_t num_rows, int64_t num_experts,
                                     cudaStream_t stream) {
  if (num_rows == 0) return cudaSuccess;
  return OCTET_LAUNCH(RouterLossBackwardKernel, BlocksFor(num_rows, kThreads),
                      kThreads, 0, stream, logits, coef, z_coef, dlogits,
                      num_rows, num_experts);
}

}  // namespace octet::cuda
