#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/rms_norm_backward.h"

namespace octet::cuda {
namespace {

constexpr int kThreads = 256;

// r = 1 / sqrt(mean(x^2) + eps) of a row.
__device__ float RowScale(const float* x, int64_t hidden, float eps,
                          float* shared) {
  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < hidden; i += kThreads) {
    sum = fmaf(x[i], x[i], sum);
  }
  sum = BlockSum<kThreads>(sum, shared);
  return 1.0f / sqrtf(sum / static_cast<float>(hidden) + eps);
}

__global__ void __launch_bounds__(kThreads)
    RmsNormBackwardKernel(const RmsNormBackwardArgs args) {
  __shared__ float shared[kThreads];
  const int64_t begin = int64_t{blockIdx.x} * args.hidden;
  const float* x = args.x + begin;
  const float* dy = args.dy + begin;
  float* dx = args.dx + begin;
  const float r = RowScale(x, args.hidden, args.eps, shared);
  float dot = 0.0f;
  for (int64_t i = threadIdx.x; i < args.hidden; i += kThreads) {
    dot = fmaf(dy[i] * args.weight[i], x[i], dot);
  }
  dot = BlockSum<kThreads>(dot, shared) / static_cast<float>(args.hidden);
  const float pull = r * r * dot;
  for (int64_t i = threadIdx.x; i < args.hidden; i += kThreads) {
    dx[i] = fmaf(r, fmaf(-x[i], pull, dy[i] * args.weight[i]), dx[i]);
  }
}

__global__ void __launch_bounds__(kThreads)
    RowScalesKernel(const RmsNormBackwardArgs args) {
  __shared__ float shared[kThreads];
  const float r = RowScale(args.x + int64_t{blockIdx.x} * args.hidden,
                           args.hidden, args.eps, shared);
  if (threadIdx.x == 0) args.scales[blockIdx.x] = r;
}

__global__ void __launch_bounds__(kThreads)
    RmsNormBackwardWeightKernel(const RmsNormBackwardArgs args) {
  const int64_t col = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (col >= args.hidden) return;
  float sum = 0.0f;
  for (int64_t t = 0; t < args.num_rows; ++t) {
    const int64_t at = t * args.hidden + col;
    sum = fmaf(args.dy[at], args.x[at] * args.scales[t], sum);
  }
  args.dweight[col] = args.accumulate ? args.dweight[col] + sum : sum;
}

}  // namespace

cudaError_t LaunchRmsNormBackward(const RmsNormBackwardArgs& args,
                                  cudaStream_t stream) {
  if (args.num_rows == 0) return cudaSuccess;
  return OCTET_LAUNCH(RmsNormBackwardKernel,
                      static_cast<unsigned>(args.num_rows), kThreads, 0, stream,
                      args);
}

cudaError_t LaunchRmsNormBackwardWeight(const RmsNormBackwardArgs& args,
                                        cudaStream_t stream) {
  if (args.num_rows > 0) {
    const cudaError_t error =
        OCTET_LAUNCH(RowScalesKernel, static_cast<unsigned>(args.num_rows),
                     kThreads, 0, stream, args);
    if (error != cudaSuccess) return error;
  }
  return OCTET_LAUNCH(RmsNormBackwardWeightKernel,
                      BlocksFor(args.hidden, kThreads), kThreads, 0, stream,
                      args);
}

}  // namespace octet::cuda
