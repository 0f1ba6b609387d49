// CrossEntropy of kernels/training_backend.h on the GPU.
//
// A block of 256 threads a row, in three passes: largest logit, sum of
// exponentials (in double: thread i takes columns i, i + 256, .., then a tree),
// gradient. Bytes (12 + s) N V, s the size of an element of dlogits: bound by
// bandwidth. The target's gradient, 1 - p, is formed in double: near 1 its
// difference would lose its digits. Bits: of each row alone.
#ifndef OCTET_KERNELS_CUDA_CROSS_ENTROPY_H_
#define OCTET_KERNELS_CUDA_CROSS_ENTROPY_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/elements.h"

namespace octet::cuda {

struct CrossEntropyArgs {
  const float* logits = nullptr;     // [N, V]
  const int32_t* targets = nullptr;  // [N], -1 to V - 1
  const float* scales = nullptr;     // [N]
  float* losses = nullptr;           // [N]
  Elements dlogits;                  // [N, V]; may be logits; or without data
  int64_t num_rows = 0;              // N
  int64_t vocab = 0;                 // V
};

// Asynchronous. Returns the error of the launch.
cudaError_t LaunchCrossEntropy(const CrossEntropyArgs& args,
                               cudaStream_t stream);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_CROSS_ENTROPY_H_
