#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/embedding_backward.h"
#include "kernels/cuda/launch.h"

namespace octet::cuda {
namespace {

constexpr int kThreads = 64;

__global__ void __launch_bounds__(kThreads)
    EmbeddingBackwardKernel(const float* dx, const int32_t* ids, float* dtable,
                            const int64_t num_rows, const int64_t hidden) {
  const int64_t col = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (col >= hidden) return;
  for (int64_t t = 0; t < num_rows; ++t) {
    dtable[ids[t] * hidden + col] += dx[t * hidden + col];
  }
}

}  // namespace

cudaError_t LaunchEmbeddingBackward(const float* dx, const int32_t* ids,
                                    float* dtable, int64_t num_rows,
                                    int64_t hidden, cudaStream_t stream) {
  if (num_rows * hidden == 0) return cudaSuccess;
  return OCTET_LAUNCH(EmbeddingBackwardKernel, BlocksFor(hidden, kThreads),
                      kThreads, 0, stream, dx, ids, dtable, num_rows, hidden);
}

}  // namespace octet::cuda
