// SlotDots of kernels/training_backend.h on the GPU.
//
// A warp a slot; lanes take neighbouring columns, and the 32 sums are added by
// halves. Bytes (4 + s) T K H, s the size of an element of rows: bound by
// bandwidth. Bits: of x's row and the slot's row alone.
#ifndef OCTET_KERNELS_CUDA_COMBINE_BACKWARD_H_
#define OCTET_KERNELS_CUDA_COMBINE_BACKWARD_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/elements.h"

namespace octet::cuda {

struct SlotDotsArgs {
  const float* x = nullptr;            // [T, H]
  ConstElements rows;                  // [N, H]
  const int32_t* slot_rows = nullptr;  // [T, K]
  float* dots = nullptr;               // [T, K]
  int64_t num_rows = 0;                // T
  int64_t top_k = 0;                   // K
  int64_t hidden = 0;                  // H
};

// Asynchronous. Returns the error of the launch.
cudaError_t LaunchSlotDots(const SlotDotsArgs& args, cudaStream_t stream);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_COMBINE_BACKWARD_H_
