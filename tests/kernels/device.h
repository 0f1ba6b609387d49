// A backend with a stream, and tensors that live in its memory: what the
// operations' tests run on. Data go through the backend's own copies, so that
// a test body holds for every device.
#ifndef OCTET_TESTS_KERNELS_DEVICE_H_
#define OCTET_TESTS_KERNELS_DEVICE_H_

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "kernels/tensor.h"
#include "tests/kernels/backend_cases.h"
#include "tests/reference/host_tensor.h"

namespace octet::test {

class Device {
 public:
  explicit Device(const BackendCase& backend_case, int way = 1);
  // A CPU backend.
  explicit Device(cpu::Isa isa, int num_threads = 1);

  Backend& backend() { return *backend_; }
  Stream& stream() { return *stream_; }

  // The tensors live as long as the device. What New gives reads as 0xff bytes
  // (NaN), so that what an operation leaves out is seen; where the backend
  // itself gives such memory, a read of it is an error that it reports.
  Tensor New(DType dtype, std::initializer_list<int64_t> dims);
  // 0xff bytes that may be read: where a test looks beside what is written.
  Tensor Filled(DType dtype, std::initializer_list<int64_t> dims);
  Tensor Upload(absl::Span<const float> values,
                std::initializer_list<int64_t> dims);
  Tensor Upload(absl::Span<const BF16> values,
                std::initializer_list<int64_t> dims);
  Tensor Upload(absl::Span<const int32_t> values,
                std::initializer_list<int64_t> dims);
  Tensor Upload(absl::Span<const int64_t> values,
                std::initializer_list<int64_t> dims);
  // As f32 or bf16, and what was uploaded.
  Tensor UploadAs(DType dtype, absl::Span<const float> values,
                  std::initializer_list<int64_t> dims);

  std::vector<float> Floats(ConstTensor tensor);  // f32, or bf16 widened
  std::vector<int32_t> Integers(ConstTensor tensor);

 private:
  Device(absl::StatusOr<std::unique_ptr<Backend>> backend, bool poisons_memory);

  Tensor Write(DType dtype, const void* values, size_t count,
               std::initializer_list<int64_t> dims);
  void Read(ConstTensor tensor, void* to);

  Tensor Allocate(DType dtype, std::initializer_list<int64_t> dims);

  const bool poisons_memory_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  std::vector<std::unique_ptr<Buffer>> buffers_;
};

// What a tensor of `dtype` holds of these values.
std::vector<float> RoundTo(DType dtype, std::vector<float> values);

// A random K/V cache of one layer with the contents known on the host.
struct HostCache {
  DType dtype = DType::kF32;
  int num_kv_heads = 1;
  int block_tokens = 16;
  int head_dim = 8;
  int64_t num_blocks = 0;
};
KvCacheView NewCache(Device& device, const HostCache& shape);
// Every byte is 0xff, also for the backend.
KvCacheView FilledCache(Device& device, const HostCache& shape);
// Writes keys and values [S, N_kv D] of one sequence into the blocks of its
// table; what no token has been written to stays as it is.
void FillCache(Device& device, const KvCacheView& cache,
               absl::Span<const int32_t> block_table,
               absl::Span<const float> keys, absl::Span<const float> values);

// Printable test parameter.
std::string IsaName(cpu::Isa isa);

}  // namespace octet::test

#endif  // OCTET_TESTS_KERNELS_DEVICE_H_
