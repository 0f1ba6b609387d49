// Backend::RmsNorm on the GPU.
//
// One block of 256 threads a row: at H 4096 a thread has four words of 16 bytes
// in each of two passes, the second of which reads the row from the first-level
// cache. Enough rows fill the GPU; one row (decode) is a launch and two trips
// to memory, whatever the tile. Bytes: 4 T H read, 4 H of weights, s T H
// written, s the size of the output; flops 4 T H: bound by bandwidth.
//
// Formula: out = x * (1 / sqrt(sum / H + eps)) * weight. Bits: thread i sums
// the squares of columns 4 i .. 4 i + 3, 4 (i + 256) .., each by a fused
// multiply-add in rising order; lanes are added by halves (distance 16, 8, 4,
// 2, 1), the eight warps in order. The order is a function of H alone.
#ifndef OCTET_KERNELS_CUDA_RMS_NORM_H_
#define OCTET_KERNELS_CUDA_RMS_NORM_H_

#include <cuda_runtime.h>

#include <cstdint>

namespace octet::cuda {

struct RmsNormArgs {
  const float* x = nullptr;       // [T, H]
  const float* weight = nullptr;  // [H]
  float eps = 0.0f;
  void* out = nullptr;       // [T, H] bf16 or f32; may be x
  bool out_is_bf16 = false;  // else f32
  int64_t num_rows = 0;      // T
  int64_t hidden = 0;        // H
};

// Asynchronous. Returns the error of the launch.
cudaError_t LaunchRmsNorm(const RmsNormArgs& args, cudaStream_t stream);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_RMS_NORM_H_
