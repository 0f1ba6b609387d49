#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/swiglu.h"

namespace octet::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float Sigmoid(float a) {
  return 1.0f / (1.0f + expf(-a));
}

__global__ void __launch_bounds__(kThreads)
    SwiGluKernel(const ConstElements h, const Elements out,
                 const int64_t num_rows, const int64_t ffn) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= num_rows * ffn) return;
  const int64_t at = i / ffn * 2 * ffn + i % ffn;
  const float a = LoadAt(h, at);
  const float b = LoadAt(h, at + ffn);
  StoreAt(out, i, a * Sigmoid(a) * b);
}

__global__ void __launch_bounds__(kThreads)
    SwiGluBackwardKernel(const ConstElements h, const ConstElements dout,
                         const Elements dh, const int64_t num_rows,
                         const int64_t ffn) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= num_rows * ffn) return;
  const int64_t at = i / ffn * 2 * ffn + i % ffn;
  const float a = LoadAt(h, at);
  const float b = LoadAt(h, at + ffn);
  const float grad = LoadAt(dout, i);
  const float s = Sigmoid(a);
  StoreAt(dh, at, grad * b * s * fmaf(a, 1.0f - s, 1.0f));
  StoreAt(dh, at + ffn, grad * (a * s));
}

}  // namespace

cudaError_t LaunchSwiGlu(ConstElements h, Elements out, int64_t num_rows,
                         int64_t ffn, cudaStream_t stream) {
  if (num_rows * ffn == 0) return cudaSuccess;
  return OCTET_LAUNCH(SwiGluKernel, BlocksFor(num_rows * ffn, kThreads),
                      kThreads, 0, stream, h, out, num_rows, ffn);
}

cudaError_t LaunchSwiGluBackward(ConstElements h, ConstElements dout,
                                 Elements dh, int64_t num_rows, int64_t ffn,
                                 cudaStream_t stream) {
  if (num_rows * ffn == 0) return cudaSuccess;
  return OCTET_LAUNCH(SwiGluBackwardKernel, BlocksFor(num_rows * ffn, kThreads),
                      kThreads, 0, stream, h, dout, dh, num_rows, ffn);
}

}  // namespace octet::cuda
