// Results of the CUDA runtime and of cuBLAS as absl::Status.
#ifndef OCTET_KERNELS_CUDA_CUDA_STATUS_H_
#define OCTET_KERNELS_CUDA_CUDA_STATUS_H_

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace octet::cuda {

// OK, or one sentence that begins with `call`: what was called, and on what
// ("cudaMalloc of 1024 bytes: out of memory"). RESOURCE_EXHAUSTED for memory,
// FAILED_PRECONDITION without a usable GPU or driver, UNIMPLEMENTED for what
// cuBLAS does not support, else INTERNAL: the
// context may be broken for good.
absl::Status CudaStatus(cudaError_t error, absl::string_view call);
absl::Status CublasStatus(cublasStatus_t error, absl::string_view call);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_CUDA_STATUS_H_
