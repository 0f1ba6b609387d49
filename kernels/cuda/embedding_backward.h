// EmbeddingBackward of kernels/training_backend.h on the GPU.
//
// A thread a column walks the rows: no two threads write one element, so there
// are no atomics, and rows of one id are added by rising t. Bytes 12 T H.
#ifndef OCTET_KERNELS_CUDA_EMBEDDING_BACKWARD_H_
#define OCTET_KERNELS_CUDA_EMBEDDING_BACKWARD_H_

#include <cuda_runtime.h>

#include <cstdint>

namespace octet::cuda {

// dx [T, H]; ids [T]; dtable [V, H]. Asynchronous. Returns the error of the
// launch.
cudaError_t LaunchEmbeddingBackward(const float* dx, const int32_t* ids,
                                    float* dtable, int64_t num_rows,
                                    int64_t hidden, cudaStream_t stream);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_EMBEDDING_BACKWARD_H_
