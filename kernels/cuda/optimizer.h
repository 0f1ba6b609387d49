// SumOfSquares, AdamW and Repack of kernels/training_backend.h on the GPU.
//
// SumOfSquares: a block of 256 threads a chunk, in double: thread i takes
// elements i, i + 256, .., then a tree. AdamW and Repack: a thread an element.
// All are bound by bandwidth: 4, 28 and 4 + s bytes an element. Bits: of a
// chunk, of an element.
//
// All calls are asynchronous and return the error of the launch.
#ifndef OCTET_KERNELS_CUDA_OPTIMIZER_H_
#define OCTET_KERNELS_CUDA_OPTIMIZER_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/adamw_step.h"
#include "kernels/cuda/elements.h"

namespace octet::cuda {

// sums[c] of elements [c chunk, (c + 1) chunk) of the n of x; sums in device
// memory.
cudaError_t LaunchSumOfSquares(const float* x, int64_t n, int64_t chunk,
                               double* sums, cudaStream_t stream);

// All [n].
cudaError_t LaunchAdamW(const AdamWStep& step, const float* grad, float* weight,
                        float* m, float* v, int64_t n, cudaStream_t stream);

// Rows [num_rows, k] into padded rows of ld elements; the padding stays.
cudaError_t LaunchRepack(const float* rows, Elements packed, int64_t num_rows,
                         int64_t k, int64_t ld, cudaStream_t stream);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_OPTIMIZER_H_
