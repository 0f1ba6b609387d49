// RopeBackward of kernels/training_backend.h on the GPU.
//
// A block of 128 threads a token: the angles once, by the digits of rope.h,
// then a thread a pair. Bytes (4 + s) T (N_q + 2 N_kv) D, s the size of an
// element of dqkv: bound by bandwidth. Bits: of each token and head alone.
#ifndef OCTET_KERNELS_CUDA_ROPE_BACKWARD_H_
#define OCTET_KERNELS_CUDA_ROPE_BACKWARD_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/elements.h"

namespace octet::cuda {

struct RopeBackwardArgs {
  const float* dq = nullptr;           // [T, N_q D]
  const float* dk = nullptr;           // [T, N_kv D]
  const float* dv = nullptr;           // [T, N_kv D]
  const int32_t* positions = nullptr;  // [T], each >= 0
  const double2* table = nullptr;      // of RopeTable
  Elements dqkv;                       // [T, (N_q + 2 N_kv) D]
  int64_t num_rows = 0;                // T
  int32_t num_heads = 0;               // N_q
  int32_t num_kv_heads = 0;            // N_kv
  int32_t head_dim = 0;                // D, even
};

// Asynchronous. Returns the error of the launch.
cudaError_t LaunchRopeBackward(const RopeBackwardArgs& args,
                               cudaStream_t stream);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_ROPE_BACKWARD_H_
