#include "tests/kernels/device.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/functional/function_ref.h"
#include "base/logging.h"
#include "kernels/cpu/cpu_backend.h"

namespace octet::test {
namespace {

void Check(const absl::Status& status) {
  OCTET_CHECK(status.ok()) << status.message();
}

KvCacheView MakeCache(const HostCache& shape,
                      absl::FunctionRef<void*(int64_t count)> allocate) {
  KvCacheView cache;
  const int64_t count = shape.num_blocks * shape.num_kv_heads *
                        int64_t{shape.block_tokens} * shape.head_dim;
  cache.keys = allocate(count);
  cache.values = allocate(count);
  cache.dtype = shape.dtype;
  cache.num_blocks = shape.num_blocks;
  cache.num_kv_heads = shape.num_kv_heads;
  cache.block_tokens = shape.block_tokens;
  cache.head_dim = shape.head_dim;
  return cache;
}

}  // namespace

Device::Device(const BackendCase& backend_case, int way)
    : Device(backend_case.make(way), backend_case.poisons_memory) {}

Device::Device(cpu::Isa isa, int num_threads)
    : Device(NewCpuBackend({.num_threads = num_threads, .isa = isa}), false) {}

Device::Device(absl::StatusOr<std::unique_ptr<Backend>> backend,
               bool poisons_memory)
    : poisons_memory_(poisons_memory) {
  Check(backend.status());
  backend_ = *std::move(backend);
  auto stream = backend_->NewStream();
  Check(stream.status());
  stream_ = *std::move(stream);
}

Tensor Device::New(DType dtype, std::initializer_list<int64_t> dims) {
  return poisons_memory_ ? Allocate(dtype, dims) : Filled(dtype, dims);
}

Tensor Device::Filled(DType dtype, std::initializer_list<int64_t> dims) {
  const Tensor tensor = Allocate(dtype, dims);
  const std::vector<uint8_t> bytes(tensor.num_bytes(), 0xff);
  Check(backend_->CopyToDevice(tensor.data(), bytes.data(), bytes.size(),
                               *stream_));
  return tensor;
}

Tensor Device::Allocate(DType dtype, std::initializer_list<int64_t> dims) {
  auto buffer = backend_->Allocate(Tensor(nullptr, dtype, dims).num_bytes());
  Check(buffer.status());
  buffers_.push_back(*std::move(buffer));
  return Tensor(buffers_.back()->data(), dtype, dims);
}

Tensor Device::Write(DType dtype, const void* values, size_t count,
                     std::initializer_list<int64_t> dims) {
  const Tensor tensor = New(dtype, dims);
  OCTET_CHECK(static_cast<int64_t>(count) == tensor.num_elements())
      << count << " values for " << tensor.ToString();
  Check(backend_->CopyToDevice(tensor.data(), values, tensor.num_bytes(),
                               *stream_));
  Check(backend_->Synchronize(*stream_));
  return tensor;
}

Tensor Device::Upload(absl::Span<const float> values,
                      std::initializer_list<int64_t> dims) {
  return Write(DType::kF32, values.data(), values.size(), dims);
}

Tensor Device::Upload(absl::Span<const BF16> values,
                      std::initializer_list<int64_t> dims) {
  return Write(DType::kBF16, values.data(), values.size(), dims);
}

Tensor Device::Upload(absl::Span<const int32_t> values,
                      std::initializer_list<int64_t> dims) {
  return Write(DType::kI32, values.data(), values.size(), dims);
}

Tensor Device::Upload(absl::Span<const int64_t> values,
                      std::initializer_list<int64_t> dims) {
  return Write(DType::kI64, values.data(), values.size(), dims);
}

Tensor Device::UploadAs(DType dtype, absl::Span<const float> values,
                        std::initializer_list<int64_t> dims) {
  return dtype == DType::kF32 ? Upload(values, dims)
                              : Upload(test::ToBF16(values), dims);
}

void Device::Read(ConstTensor tensor, void* to) {
  Check(backend_->CopyToHost(to, tensor.data(), tensor.num_bytes(), *stream_));
  Check(backend_->Synchronize(*stream_));
}

std::vector<float> Device::Floats(ConstTensor tensor) {
  if (tensor.dtype() == DType::kBF16) {
    std::vector<BF16> values(tensor.num_elements());
    Read(tensor, values.data());
    return ToFloats(values);
  }
  std::vector<float> values(tensor.num_elements());
  Read(tensor, values.data());
  return values;
}

std::vector<int32_t> Device::Integers(ConstTensor tensor) {
  std::vector<int32_t> values(tensor.num_elements());
  Read(tensor, values.data());
  return values;
}

std::vector<float> RoundTo(DType dtype, std::vector<float> values) {
  return dtype == DType::kF32 ? std::move(values)
                              : ToFloats(test::ToBF16(values));
}

KvCacheView NewCache(Device& device, const HostCache& shape) {
  return MakeCache(shape, [&](int64_t count) {
    return device.New(shape.dtype, {count}).data();
  });
}

KvCacheView FilledCache(Device& device, const HostCache& shape) {
  return MakeCache(shape, [&](int64_t count) {
    return device.Filled(shape.dtype, {count}).data();
  });
}

void FillCache(Device& device, const KvCacheView& cache,
               absl::Span<const int32_t> block_table,
               absl::Span<const float> keys, absl::Span<const float> values) {
  const int64_t dim = cache.head_dim;
  const int64_t row = cache.num_kv_heads * dim;
  const auto write = [&](void* base, absl::Span<const float> from) {
    const int64_t length = static_cast<int64_t>(from.size()) / row;
    std::vector<std::vector<float>> tokens;  // alive until they are copied
    std::vector<std::vector<BF16>> rounded;
    for (int64_t s = 0; s < length; s += cache.block_tokens) {
      const int64_t block = block_table[s / cache.block_tokens];
      const int64_t end = std::min<int64_t>(length, s + cache.block_tokens);
      for (int64_t head = 0; head < cache.num_kv_heads; ++head) {
        // A block's tokens of one head lie side by side: one copy.
        std::vector<float>& part = tokens.emplace_back();
        for (int64_t t = s; t < end; ++t) {
          const float* at = from.data() + t * row + head * dim;
          part.insert(part.end(), at, at + dim);
        }
        rounded.push_back(test::ToBF16(part));
        const void* source =
            cache.dtype == DType::kF32
                ? static_cast<const void*>(part.data())
                : static_cast<const void*>(rounded.back().data());
        const int64_t to =
            (block * cache.num_kv_heads + head) * cache.block_tokens * dim;
        Check(device.backend().CopyToDevice(
            static_cast<char*>(base) + to * SizeOf(cache.dtype), source,
            part.size() * SizeOf(cache.dtype), device.stream()));
      }
    }
    Check(device.backend().Synchronize(device.stream()));
  };
  write(cache.keys, keys);
  write(cache.values, values);
}

std::string IsaName(cpu::Isa isa) { return std::string(cpu::Name(isa)); }

}  // namespace octet::test
