// RmsNormBackward and RmsNormBackwardWeight of kernels/training_backend.h on
// the GPU.
//
// dx: a block of 256 threads a row; bytes 16 T H, bound by bandwidth. dweight:
// first r = 1 / sqrt(mean(x^2) + eps) of every row, then a thread a column
// walks the rows; bytes 12 T H. Bits: of a row's dx, of that row; of dweight,
// of the rows in their order. Sums over a row: thread i takes columns i, i +
// 256, .., then a tree.
#ifndef OCTET_KERNELS_CUDA_RMS_NORM_BACKWARD_H_
#define OCTET_KERNELS_CUDA_RMS_NORM_BACKWARD_H_

#include <cuda_runtime.h>

#include <cstdint>

namespace octet::cuda {

struct RmsNormBackwardArgs {
  const float* x = nullptr;       // [T, H]
  const float* weight = nullptr;  // [H]; of dx
  float eps = 0.0f;
  const float* dy = nullptr;  // [T, H]
  float* dx = nullptr;        // [T, H]; of dx
  float* scales = nullptr;    // [T] scratch; of dweight
  float* dweight = nullptr;   // [H]; of dweight
  bool accumulate = false;    // of dweight
  int64_t num_rows = 0;       // T
  int64_t hidden = 0;         // H
};

// Asynchronous. Return the error of a launch. H > 0.
cudaError_t LaunchRmsNormBackward(const RmsNormBackwardArgs& args,
                                  cudaStream_t stream);
cudaError_t LaunchRmsNormBackwardWeight(const RmsNormBackwardArgs& args,
                                        cudaStream_t stream);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_RMS_NORM_BACKWARD_H_
