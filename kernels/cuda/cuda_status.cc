#include "kernels/cuda/cuda_status.h"

#include "absl/strings/str_cat.h"

namespace octet::cuda {

absl::Status CudaStatus(cudaError_t error, absl::string_view call) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string sentence =
      absl::StrCat(call, ": ", cudaGetErrorString(error));
  switch (error) {
    case cudaErrorMemoryAllocation:
      return absl::ResourceExhaustedError(sentence);
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
    case cudaErrorNoKernelImageForDevice:
      return absl::FailedPreconditionError(sentence);
    default:
      return absl::InternalError(sentence);
  }
}

absl::Status CublasStatus(cublasStatus_t error, absl::string_view call) {
  if (error == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string sentence =
      absl::StrCat(call, ": cuBLAS status ", static_cast<int>(error));
  switch (error) {
    case CUBLAS_STATUS_ALLOC_FAILED:
      return absl::ResourceExhaustedError(sentence);
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return absl::UnimplementedError(sentence);
    case CUBLAS_STATUS_NOT_INITIALIZED:
    case CUBLAS_STATUS_ARCH_MISMATCH:
      return absl::FailedPreconditionError(sentence);
    default:
      return absl::InternalError(sentence);
  }
}

}  // namespace octet::cuda
