// What the CUDA backend does beside its operations: devices, streams, events,
// copies, and arguments that are another backend's or beyond its limits.
#include "kernels/cuda/cuda_backend.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/ops.h"
#include "tests/kernels/shape_count.h"
#include "tests/reference/host_tensor.h"

namespace octet {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class CudaBackendTest : public testing::Test {
 protected:
  CudaBackendTest()
      : backend_(NewCudaBackend({}).value()),
        stream_(backend_->NewStream().value()) {}

  std::unique_ptr<Buffer> BufferOf(size_t num_bytes) {
    return backend_->Allocate(num_bytes).value();
  }
  std::vector<int32_t> Download(const Buffer& buffer) {
    std::vector<int32_t> values(buffer.size_bytes() / sizeof(int32_t));
    EXPECT_TRUE(backend_
                    ->CopyToHost(values.data(), buffer.data(),
                                 buffer.size_bytes(), *stream_)
                    .ok());
    EXPECT_TRUE(backend_->Synchronize(*stream_).ok());
    return values;
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
};

TEST_F(CudaBackendTest, DescriptionNamesTheGpu) {
  EXPECT_THAT(backend_->Description(), StartsWith("cuda ("));
  EXPECT_THAT(backend_->Description(), HasSubstr("sm_"));
  EXPECT_THAT(backend_->Description(), HasSubstr("device 0"));
}

TEST_F(CudaBackendTest, UnknownDevicesAreRefused) {
  int count = 0;
  ASSERT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
  for (int device : {-1, count}) {
    const auto backend = NewCudaBackend({.device = device});
    EXPECT_EQ(backend.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(backend.status().message()),
                HasSubstr("cuda: device is " + std::to_string(device) +
                          ", expected 0 to "));
  }
}

// More than all pinned slots hold; the source is gone when the call returns.
TEST_F(CudaBackendTest, WeightsInNf4AreRefused) {
  const absl::Status status =
      backend_->NewNf4Matrix(DType::kBF16, {64}, 64).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("has no weights in NF4, expected cpu"));
}

TEST_F(CudaBackendTest, CopiesOfAnySizeLeaveTheSourceFree) {
  for (const size_t count : {0, 1, 65536, 65537, 600001}) {
    std::vector<int32_t> values(count);
    std::iota(values.begin(), values.end(), 7);
    const auto buffer = BufferOf(count * sizeof(int32_t));
    std::vector<int32_t> source = values;
    ASSERT_TRUE(backend_
                    ->CopyToDevice(buffer->data(), source.data(),
                                   buffer->size_bytes(), *stream_)
                    .ok());
    std::fill(source.begin(), source.end(), -1);
    EXPECT_EQ(Download(*buffer), values) << count;
  }
}

// Pieces of any size at any address, both ways; what is beside them stays.
TEST_F(CudaBackendTest, CopiesOfRandomShapes) {
  test::ShapeCount shapes;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    test::Random random(seed);
    const int64_t size =
        seed < 2 ? seed : random.Integer(1, seed % 8 == 2 ? 100000 : 300);
    const int64_t before = random.Integer(0, 40);
    const int64_t zeros = random.Integer(0, size);
    shapes.Add(size, {before, zeros});
    SCOPED_TRACE(testing::Message() << size << " bytes at " << before);
    std::vector<uint8_t> expected(before + size + 17);
    for (uint8_t& byte : expected) {
      byte = static_cast<uint8_t>(random.Integer(1, 255));
    }
    const auto buffer = BufferOf(expected.size());
    auto* const data = static_cast<uint8_t*>(buffer->data());
    ASSERT_TRUE(
        backend_->CopyToDevice(data, expected.data(), expected.size(), *stream_)
            .ok());
    std::vector<uint8_t> piece(size, 7);
    ASSERT_TRUE(
        backend_->CopyToDevice(data + before, piece.data(), size, *stream_)
            .ok());
    ASSERT_TRUE(backend_->Zero(data + before, zeros, *stream_).ok());
    std::fill_n(piece.begin(), zeros, uint8_t{0});
    std::copy(piece.begin(), piece.end(), expected.begin() + before);
    std::vector<uint8_t> back(size, 1), all(expected.size(), 1);
    ASSERT_TRUE(
        backend_->CopyToHost(back.data(), data + before, size, *stream_).ok());
    ASSERT_TRUE(
        backend_->CopyToHost(all.data(), data, all.size(), *stream_).ok());
    ASSERT_TRUE(backend_->Synchronize(*stream_).ok());
    EXPECT_EQ(back, piece);
    EXPECT_EQ(all, expected);
  }
  shapes.Check();
}

TEST_F(CudaBackendTest, ZeroAndNothing) {
  const std::vector<int32_t> ones(10, 1);
  const auto buffer = BufferOf(40);
  ASSERT_TRUE(
      backend_->CopyToDevice(buffer->data(), ones.data(), 40, *stream_).ok());
  ASSERT_TRUE(backend_->Zero(buffer->data(), 20, *stream_).ok());
  ASSERT_TRUE(backend_->Zero(buffer->data(), 0, *stream_).ok());
  EXPECT_THAT(Download(*buffer),
              testing::ElementsAre(0, 0, 0, 0, 0, 1, 1, 1, 1, 1));
}

// What one stream writes another reads after an event, in every stream mode.
TEST_F(CudaBackendTest, EventsOrderStreams) {
  const auto other = backend_->NewStream().value();
  const auto event = backend_->NewEvent().value();
  // Not recorded yet: nothing to wait for.
  ASSERT_TRUE(backend_->Wait(*event, *stream_).ok());
  const auto buffer = BufferOf(1 << 16);
  ASSERT_TRUE(backend_->Zero(buffer->data(), 1 << 16, *other).ok());
  const std::vector<int32_t> values(1 << 14, 3);
  ASSERT_TRUE(
      backend_->CopyToDevice(buffer->data(), values.data(), 1 << 16, *other)
          .ok());
  ASSERT_TRUE(backend_->Record(*event, *other).ok());
  ASSERT_TRUE(backend_->Wait(*event, *stream_).ok());
  EXPECT_EQ(Download(*buffer), values);
}

TEST_F(CudaBackendTest, ObjectsOfAnotherBackendAreRefused) {
  const auto cpu = NewCpuBackend({}).value();
  const auto foreign_stream = cpu->NewStream().value();
  const auto foreign_event = cpu->NewEvent().value();
  const auto foreign_matrix = cpu->NewPackedMatrix(DType::kF32, 4, 8).value();
  const auto buffer = BufferOf(256);
  const Tensor x(buffer->data(), DType::kF32, {1, 8});
  const Tensor out(buffer->data(), DType::kF32, {1, 4});
  EXPECT_THAT(
      std::string(backend_->Synchronize(*foreign_stream).message()),
      HasSubstr("CudaBackend: the stream is another backend's, expected one"));
  EXPECT_THAT(std::string(backend_->Record(*foreign_event, *stream_).message()),
              HasSubstr("CudaBackend: the event is another backend's"));
  EXPECT_THAT(std::string(backend_->Wait(*foreign_event, *stream_).message()),
              HasSubstr("CudaBackend: the event is another backend's"));
  const std::string message =
      "CudaBackend: the matrix is another backend's, expected one from "
      "NewPackedMatrix";
  EXPECT_EQ(backend_->Gemm(x, *foreign_matrix, false, out, *stream_).message(),
            message);
  const PackedMatrix* const matrices[] = {foreign_matrix.get()};
  const int64_t offsets[] = {0, 1};
  EXPECT_EQ(
      backend_->GroupedGemm(x, matrices, offsets, out, *stream_).message(),
      message);
  EXPECT_EQ(backend_->GroupedGemmSwiGlu(x, matrices, offsets, out, *stream_)
                .message(),
            message);
  std::vector<float> host(32);
  EXPECT_EQ(backend_
                ->PackRows(*foreign_matrix, 0,
                           ConstTensor(host.data(), DType::kF32, {4, 8}))
                .message(),
            message);
  EXPECT_EQ(backend_
                ->UnpackRows(*foreign_matrix, 0,
                             Tensor(host.data(), DType::kF32, {4, 8}))
                .message(),
            message);
}

TEST_F(CudaBackendTest, LimitsOfAttentionAreSaid) {
  const auto buffer = BufferOf(1 << 16);
  KvCacheView cache;
  cache.keys = cache.values = buffer->data();
  cache.num_blocks = 1;
  cache.num_kv_heads = 1;
  cache.block_tokens = 4;
  cache.head_dim = 130;
  const Tensor q(buffer->data(), DType::kF32, {1, 130});
  const std::vector<int32_t> table = {0};
  EXPECT_EQ(ops::PagedAttention(*backend_, q, cache, {{0, 1, 0, table}}, 0, q,
                                *stream_)
                .message(),
            "PagedAttention: head_dim is 130, expected an even number up to "
            "128 on the cuda backend");
  cache.head_dim = 15;
  const Tensor odd(buffer->data(), DType::kF32, {1, 15});
  EXPECT_EQ(ops::PagedAttention(*backend_, odd, cache, {{0, 1, 0, table}}, 0,
                                odd, *stream_)
                .message(),
            "PagedAttention: head_dim is 15, expected an even number up to "
            "128 on the cuda backend");
  cache.head_dim = 64;
  cache.num_blocks = int64_t{1} << 30;
  const Tensor small(buffer->data(), DType::kF32, {1, 64});
  EXPECT_EQ(ops::PagedAttention(*backend_, small, cache, {{0, 1, 0, table}}, 0,
                                small, *stream_)
                .message(),
            "PagedAttention: the cache has 4294967296 slots, expected at most "
            "2147483647 on the cuda backend");
}

TEST_F(CudaBackendTest, MemoryThatIsNotThereIsSaid) {
  const auto buffer = backend_->Allocate(size_t{1} << 50);
  EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(buffer.status().message()),
              HasSubstr("1125899906842624 bytes"));
}

}  // namespace
}  // namespace octet
