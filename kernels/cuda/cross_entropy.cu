#include "kernels/cuda/cross_entropy.h"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/launch.h"

namespace octet::cuda {
namespace {

constexpr int kThreads = 256;

__device__ float RowMax(const float* logits, int64_t vocab, float* shared) {
  float max = logits[0];
  for (int64_t i = threadIdx.x; i < vocab; i += kThreads) {
    max = fmaxf(max, logits[i]);
  }
  shared[threadIdx.x] = max;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) {
      shared[threadIdx.x] =
          fmaxf(shared[threadIdx.x], shared[threadIdx.x + half]);
    }
    __syncthreads();
  }
  return shared[0];
}

__global__ void __launch_bounds__(kThreads)
    CrossEntropyKernel(const CrossEntropyArgs args) {
  __shared__ float maxima[kThreads];
  __shared__ double sums[kThreads];
  const int64_t row = blockIdx.x;
  const int64_t begin = row * args.vocab;
  const int32_t target = args.targets[row];
  const bool wanted = args.dlogits.data != nullptr;
  if (target < 0) {
    for (int64_t i = threadIdx.x; wanted && i < args.vocab; i += kThreads) {
      StoreAt(args.dlogits, begin + i, 0.0f);
    }
    if (threadIdx.x == 0) args.losses[row] = 0.0f;
    return;
  }
  const float* logits = args.logits + begin;
  const float max = RowMax(logits, args.vocab, maxima);
  double sum = 0.0;
  for (int64_t i = threadIdx.x; i < args.vocab; i += kThreads) {
    sum += static_cast<double>(expf(logits[i] - max));
  }
  sum = BlockSum<kThreads>(sum, sums);
  const double log_sum = log(sum);
  const double distance = static_cast<double>(max) - logits[target];
  if (threadIdx.x == 0) {
    args.losses[row] = static_cast<float>(distance + log_sum);
  }
  if (!wanted) return;
  __syncthreads();  // the gradient may lie where the target's logit does
  const float scale = args.scales[row];
  const float norm = scale / static_cast<float>(sum);
  for (int64_t i = threadIdx.x; i < args.vocab; i += kThreads) {
    const float value =
        i == target
            ? static_cast<float>(scale * (exp(-distance - log_sum) - 1.0))
            : norm * expf(logits[i] - max);
    StoreAt(args.dlogits, begin + i, value);
  }
}

}  // namespace

cudaError_t LaunchCrossEntropy(const CrossEntropyArgs& args,
                               cudaStream_t stream) {
  if (args.num_rows == 0) return cudaSuccess;
  return OCTET_LAUNCH(CrossEntropyKernel, static_cast<unsigned>(args.num_rows),
                      kThreads, 0, stream, args);
}

}  // namespace octet::cuda
