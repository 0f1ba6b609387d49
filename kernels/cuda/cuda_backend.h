// The CUDA backend: NVIDIA GPUs of compute capability 8.0 and later.
//
// Operations are launched on the stream and return at once; Sample, ScoreTokens
// and the packing of weights wait. Host arguments are free when a call returns.
// Errors of kernels come from a later call on the stream, at the latest from
// Synchronize. Indices in device memory are the caller's duty.
#ifndef OCTET_KERNELS_CUDA_CUDA_BACKEND_H_
#define OCTET_KERNELS_CUDA_CUDA_BACKEND_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace octet {

struct CudaBackendOptions {
  int device = 0;  // index among the GPUs that the process sees
  // Attention is split along keys until a call has this many blocks; 0: four
  // per multiprocessor. Changes no bits.
  int64_t attention_blocks = 0;
  // Dense products by cuBLASLt where a row's bits do not depend on the batch
  // (dense_gemm.h finds that out at a shape's first product, which then takes
  // longer); otherwise, and when false, by the project's own kernel.
  bool cublas = true;
};

// FAILED_PRECONDITION without a driver, or without a GPU of compute capability
// 8.0; INVALID_ARGUMENT when there is no GPU `device`.
absl::StatusOr<std::unique_ptr<Backend>> NewCudaBackend(
    const CudaBackendOptions& options);

}  // namespace octet

#endif  // OCTET_KERNELS_CUDA_CUDA_BACKEND_H_
