// Device memory and a stream for tests of single kernels, below the Backend.
// Any call that CUDA refuses ends the test program.
#ifndef OCTET_TESTS_KERNELS_CUDA_GPU_H_
#define OCTET_TESTS_KERNELS_CUDA_GPU_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/cuda/cuda_memory.h"
#include "kernels/tensor.h"

namespace octet::test {

class Gpu {
 public:
  Gpu();

  cudaStream_t stream() const { return stream_.get(); }
  cuda::StagingBuffers& staging() { return *staging_; }

  // Memory that lives as long as this object, as cudaMalloc gives it: the
  // emulation fills it with NaN and reports (checked) who reads it.
  Tensor New(DType dtype, std::initializer_list<int64_t> dims);
  // Bytes 0xff that may be read: where a test looks beside what is written.
  Tensor Filled(DType dtype, std::initializer_list<int64_t> dims);
  // A copy of `values` in stream order: the caller's memory is free at once.
  template <typename T>
  Tensor Upload(DType dtype, absl::Span<const T> values,
                std::initializer_list<int64_t> dims) {
    return UploadBytes(dtype, values.data(), values.size() * sizeof(T), dims);
  }
  template <typename T>
  Tensor Upload(DType dtype, const std::vector<T>& values,
                std::initializer_list<int64_t> dims) {
    return Upload(dtype, absl::MakeConstSpan(values), dims);
  }
  // Host tensor to device tensor of the same shape.
  Tensor Upload(ConstTensor host);

  // Wait for the stream.
  template <typename T>
  std::vector<T> Download(ConstTensor tensor) {
    std::vector<T> values(tensor.num_bytes() / sizeof(T));
    DownloadBytes(tensor, values.data());
    return values;
  }
  void DownloadTo(ConstTensor tensor, Tensor host) {
    DownloadBytes(tensor, host.data());
  }

 private:
  Tensor UploadBytes(DType dtype, const void* values, size_t num_bytes,
                     std::initializer_list<int64_t> dims);
  void DownloadBytes(ConstTensor tensor, void* to);

  cuda::OwnedStream stream_;
  std::unique_ptr<cuda::StagingBuffers> staging_;
  std::vector<cuda::DeviceMemory> memory_;
};

void Must(cudaError_t error);
void Must(const absl::Status& status);

}  // namespace octet::test

#endif  // OCTET_TESTS_KERNELS_CUDA_GPU_H_
