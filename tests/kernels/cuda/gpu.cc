#include "tests/kernels/cuda/gpu.h"

#include <utility>

#include "base/logging.h"
#include "kernels/cuda/cuda_status.h"

namespace octet::test {
namespace {

template <typename T>
T MustHave(absl::StatusOr<T> value) {
  Must(value.status());
  return *std::move(value);
}

}  // namespace

void Must(const absl::Status& status) {
  OCTET_CHECK(status.ok()) << status.message();
}
void Must(cudaError_t error) { Must(cuda::CudaStatus(error, "test")); }

Gpu::Gpu()
    : stream_(MustHave(cuda::NewStream())),
      staging_(MustHave(cuda::StagingBuffers::Create(size_t{1} << 16))) {}

Tensor Gpu::New(DType dtype, std::initializer_list<int64_t> dims) {
  const size_t num_bytes = Tensor(nullptr, dtype, dims).num_bytes();
  memory_.push_back(MustHave(cuda::DeviceMemory::Allocate(num_bytes)));
  return Tensor(memory_.back().data(), dtype, dims);
}

Tensor Gpu::Filled(DType dtype, std::initializer_list<int64_t> dims) {
  const Tensor tensor = New(dtype, dims);
  if (tensor.num_bytes() > 0) {
    Must(cudaMemsetAsync(tensor.data(), 0xff, tensor.num_bytes(), stream()));
  }
  return tensor;
}

Tensor Gpu::UploadBytes(DType dtype, const void* values, size_t num_bytes,
                        std::initializer_list<int64_t> dims) {
  const Tensor tensor = New(dtype, dims);
  OCTET_CHECK(tensor.num_bytes() == num_bytes)
      << num_bytes << " bytes for " << tensor.ToString();
  if (num_bytes > 0) {
    Must(cudaMemcpyAsync(tensor.data(), values, num_bytes,
                         cudaMemcpyHostToDevice, stream()));
  }
  return tensor;
}

Tensor Gpu::Upload(ConstTensor host) {
  return UploadBytes(host.dtype(), host.data(), host.num_bytes(),
                     {host.dim(0), host.dim(1)});
}

void Gpu::DownloadBytes(ConstTensor tensor, void* to) {
  if (tensor.num_bytes() > 0) {
    Must(cudaMemcpyAsync(to, tensor.data(), tensor.num_bytes(),
                         cudaMemcpyDeviceToHost, stream()));
  }
  Must(cudaStreamSynchronize(stream()));
}

}  // namespace octet::test
