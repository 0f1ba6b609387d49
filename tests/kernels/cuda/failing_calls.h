// Operations whose calls of CUDA and cuBLAS are made to fail, each in turn.
#ifndef OCTET_TESTS_KERNELS_CUDA_FAILING_CALLS_H_
#define OCTET_TESTS_KERNELS_CUDA_FAILING_CALLS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/tensor.h"
#include "tests/reference/host_tensor.h"

namespace octet::test {

using Bytes = std::vector<std::byte>;

// A backend, a stream, and memory for one run of one operation.
class Attempt {
 public:
  explicit Attempt(const CudaBackendOptions& options)
      : backend_(NewCudaBackend(options).value()),
        stream_(backend_->NewStream().value()) {}

  Backend& backend() { return *backend_; }
  Stream& stream() { return *stream_; }

  absl::StatusOr<Tensor> New(DType dtype, std::initializer_list<int64_t> dims) {
    const Tensor shape(nullptr, dtype, dims);
    OCTET_ASSIGN_OR_RETURN(buffers_.emplace_back(),
                           backend_->Allocate(shape.num_bytes()));
    OCTET_RETURN_IF_ERROR(
        backend_->Zero(buffers_.back()->data(), shape.num_bytes(), *stream_));
    return Tensor(buffers_.back()->data(), dtype, dims);
  }
  template <typename T>
  absl::StatusOr<Tensor> Upload(DType dtype, const std::vector<T>& values,
                                std::initializer_list<int64_t> dims) {
    OCTET_ASSIGN_OR_RETURN(const Tensor tensor, New(dtype, dims));
    OCTET_RETURN_IF_ERROR(backend_->CopyToDevice(tensor.data(), values.data(),
                                                 tensor.num_bytes(), *stream_));
    return tensor;
  }
  absl::StatusOr<Tensor> RandomTensor(DType dtype,
                                      std::initializer_list<int64_t> dims) {
    const std::vector<float> values = Random(3).Floats(
        static_cast<size_t>(Tensor(nullptr, dtype, dims).num_elements()));
    return dtype == DType::kF32 ? Upload(dtype, values, dims)
                                : Upload(dtype, ToBF16(values), dims);
  }
  absl::StatusOr<PackedMatrix*> RandomMatrix(DType dtype, int64_t n,
                                             int64_t k) {
    const std::vector<float> values = Random(4).Floats(n * k);
    OCTET_ASSIGN_OR_RETURN(matrices_.emplace_back(),
                           backend_->NewPackedMatrix(dtype, n, k));
    OCTET_RETURN_IF_ERROR(backend_->PackRows(
        *matrices_.back(), 0, ConstTensor(values.data(), DType::kF32, {n, k})));
    return matrices_.back().get();
  }
  absl::StatusOr<Bytes> Download(ConstTensor tensor) {
    Bytes bytes(tensor.num_bytes());
    OCTET_RETURN_IF_ERROR(backend_->CopyToHost(bytes.data(), tensor.data(),
                                               bytes.size(), *stream_));
    OCTET_RETURN_IF_ERROR(backend_->Synchronize(*stream_));
    return bytes;
  }

 private:
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  std::vector<std::unique_ptr<Buffer>> buffers_;
  std::vector<std::unique_ptr<PackedMatrix>> matrices_;
};

using Work = std::function<absl::StatusOr<Bytes>(Attempt&)>;

// Each call that `work` makes fails once. Fails the test unless the work then
// says so in a sentence that names the call, leaves nothing allocated, and has
// the same result the next time.
void ExpectEveryFailureIsSaid(const Work& work,
                              const CudaBackendOptions& options = {});

}  // namespace octet::test

#endif  // OCTET_TESTS_KERNELS_CUDA_FAILING_CALLS_H_
