#include "kernels/cuda/cuda_device.h"

#include <cuda_runtime.h>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_status.h"

namespace octet::cuda {
namespace {

constexpr int kLeastComputeCapability = 80;

absl::StatusOr<int> DeviceCount() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorInsufficientDriver) {
    return absl::FailedPreconditionError(absl::StrCat(
        "cuda: no NVIDIA driver is running on this host, or one that is too "
        "old (cudaGetDeviceCount: ",
        cudaGetErrorString(error), ")"));
  }
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
    return absl::FailedPreconditionError(
        "cuda: the NVIDIA driver shows no GPU to this process");
  }
  OCTET_RETURN_IF_ERROR(CudaStatus(error, "cudaGetDeviceCount"));
  return count;
}

}  // namespace

absl::StatusOr<CudaDevice> OpenCudaDevice(int index) {
  OCTET_ASSIGN_OR_RETURN(const int count, DeviceCount());
  if (index < 0 || index >= count) {
    return absl::InvalidArgumentError(
        absl::StrCat("cuda: device is ", index, ", expected 0 to ", count - 1));
  }
  OCTET_RETURN_IF_ERROR(
      CudaStatus(cudaSetDevice(index), absl::StrCat("cudaSetDevice ", index)));
  cudaDeviceProp properties;
  OCTET_RETURN_IF_ERROR(
      CudaStatus(cudaGetDeviceProperties(&properties, index),
                 absl::StrCat("cudaGetDeviceProperties ", index)));
  CudaDevice device;
  device.index = index;
  device.name = properties.name;
  device.compute_capability = properties.major * 10 + properties.minor;
  device.memory_bytes = properties.totalGlobalMem;
  device.multiprocessors = properties.multiProcessorCount;
  if (device.compute_capability < kLeastComputeCapability) {
    return absl::FailedPreconditionError(absl::StrCat(
        "cuda: device ", index, " (", device.name, ") has compute capability ",
        properties.major, ".", properties.minor, ", expected 8.0 or more"));
  }
  return device;
}

}  // namespace octet::cuda
