// The GPU of a backend.
#ifndef OCTET_KERNELS_CUDA_CUDA_DEVICE_H_
#define OCTET_KERNELS_CUDA_CUDA_DEVICE_H_

#include <string>

#include "absl/status/statusor.h"

namespace octet::cuda {

struct CudaDevice {
  int index = 0;
  std::string name;            // "NVIDIA H100 80GB HBM3"
  int compute_capability = 0;  // 90 for 9.0
  size_t memory_bytes = 0;
  int multiprocessors = 0;
};

// Makes the GPU the calling thread's current one. FAILED_PRECONDITION without a
// driver, or when the GPU is older than compute capability 8.0;
// INVALID_ARGUMENT when there is no such GPU.
absl::StatusOr<CudaDevice> OpenCudaDevice(int index);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_CUDA_DEVICE_H_
