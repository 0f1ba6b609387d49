#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/optimizer.h"

namespace octet::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    SumOfSquaresKernel(const float* x, const int64_t n, const int64_t chunk,
                       double* sums) {
  __shared__ double shared[kThreads];
  const int64_t begin = int64_t{blockIdx.x} * chunk;
  const int64_t end = begin + chunk < n ? begin + chunk : n;
  double sum = 0.0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const double value = x[i];
    sum = fma(value, value, sum);
  }
  sum = BlockSum<kThreads>(sum, shared);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads)
    AdamWKernel(const AdamWStep step, const float* grad, float* weight,
                float* m, float* v, const int64_t n) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= n) return;
  const float g = step.grad_scale * grad[i];
  const float mean = fmaf(step.beta1, m[i], step.rest1 * g);
  const float square = fmaf(step.beta2, v[i], step.rest2 * g * g);
  m[i] = mean;
  v[i] = square;
  const float ratio = mean / fmaf(sqrtf(square), step.correction, step.eps);
  weight[i] = fmaf(-step.rate, ratio, step.decay * weight[i]);
}

__global__ void __launch_bounds__(kThreads)
    RepackKernel(const float* rows, const Elements packed,
                 const int64_t num_rows, const int64_t k, const int64_t ld) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < num_rows * k) StoreAt(packed, i / k * ld + i % k, rows[i]);
}

}  // namespace

cudaError_t LaunchSumOfSquares(const float* x, int64_t n, int64_t chunk,
                               double* sums, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>((n + chunk - 1) / chunk);
  return OCTET_LAUNCH(SumOfSquaresKernel, blocks, kThreads, 0, stream, x, n,
                      chunk, sums);
}

cudaError_t LaunchAdamW(const AdamWStep& step, const float* grad, float* weight,
                        float* m, float* v, int64_t n, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  return OCTET_LAUNCH(AdamWKernel, BlocksFor(n, kThreads), kThreads, 0, stream,
                      step, grad, weight, m, v, n);
}

cudaError_t LaunchRepack(const float* rows, Elements packed, int64_t num_rows,
                         int64_t k, int64_t ld, cudaStream_t stream) {
  if (num_rows * k == 0) return cudaSuccess;
  return OCTET_LAUNCH(RepackKernel, BlocksFor(num_rows * k, kThreads), kThreads,
                      0, stream, rows, packed, num_rows, k, ld);
}

}  // namespace octet::cuda
