// Cast, AddScaled, CopyBlock, ScaleRows and Dropout of
// kernels/training_backend.h on the GPU.
//
// One thread an element (Dropout: four neighbours, one block of Philox), lanes
// side by side. Bytes: each operand once; bound by bandwidth. Bits: of each
// element alone.
//
// All calls are asynchronous and return the error of the launch.
#ifndef OCTET_KERNELS_CUDA_ELEMENTWISE_H_
#define OCTET_KERNELS_CUDA_ELEMENTWISE_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/elements.h"

namespace octet::cuda {

// out[i] = x[i], i < n.
cudaError_t LaunchCast(ConstElements x, Elements out, int64_t n,
                       cudaStream_t stream);

// out[i] = fma(scale, x[i], out[i]), i < n.
cudaError_t LaunchAddScaled(const float* x, float scale, float* out, int64_t n,
                            cudaStream_t stream);

struct CopyBlockArgs {
  const float* src = nullptr;  // the first element of the rectangle
  int64_t src_stride = 0;      // elements from row to row
  float* dst = nullptr;
  int64_t dst_stride = 0;
  int64_t num_rows = 0;
  int64_t num_cols = 0;
  bool accumulate = false;
};
cudaError_t LaunchCopyBlock(const CopyBlockArgs& args, cudaStream_t stream);

// out[i, j] = scales[i] x[i, j]; x, out [num_rows, num_cols]; out may be x.
cudaError_t LaunchScaleRows(ConstElements x, const float* scales, Elements out,
                            int64_t num_rows, int64_t num_cols,
                            cudaStream_t stream);

struct DropoutArgs {
  ConstElements x;  // [T, k]
  const int64_t* row_keys = nullptr;
  Elements out;
  int64_t num_rows = 0;
  int64_t num_cols = 0;
  uint64_t seed = 0;
  uint32_t threshold = 0;  // a word of at least this much keeps its element
  float factor = 1.0f;     // 1 / (1 - p)
  bool accumulate = false;
};
cudaError_t LaunchDropout(const DropoutArgs& args, cudaStream_t stream);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_ELEMENTWISE_H_
