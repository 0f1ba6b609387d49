// SwiGlu and SwiGluBackward of kernels/training_backend.h on the GPU.
//
// One thread an output of the gate: it reads a, b (and dout) and writes out (or
// da and db), so dh may be h. Bytes: each operand once; bound by bandwidth.
// Bits: of each element alone.
#ifndef OCTET_KERNELS_CUDA_SWIGLU_H_
#define OCTET_KERNELS_CUDA_SWIGLU_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/elements.h"

namespace octet::cuda {

// h [T, 2F], out [T, F]. Asynchronous. Returns the error of the launch.
cudaError_t LaunchSwiGlu(ConstElements h, Elements out, int64_t num_rows,
                         int64_t ffn, cudaStream_t stream);

// h, dh [T, 2F], dout [T, F]. Asynchronous. Returns the error of the launch.
cudaError_t LaunchSwiGluBackward(ConstElements h, ConstElements dout,
                                 Elements dh, int64_t num_rows, int64_t ffn,
                                 cudaStream_t stream);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_SWIGLU_H_
