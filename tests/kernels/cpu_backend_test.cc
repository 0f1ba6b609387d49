// Memory, streams and events of the CPU backend, and what it refuses.
#include "kernels/cpu/cpu_backend.h"

#include <cstdint>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/reference/host_tensor.h"
#include "tests/reference/reference_ops.h"

namespace octet::test {
namespace {

using testing::HasSubstr;

class ForeignStream : public Stream {};
class ForeignEvent : public Event {};

TEST(CpuBackendTest, DescribesItself) {
  for (cpu::Isa isa : cpu::SupportedIsas()) {
    auto backend = NewCpuBackend({.num_threads = 2, .isa = isa});
    ASSERT_TRUE(backend.ok());
    EXPECT_EQ((*backend)->Description(),
              "cpu (" + std::string(cpu::Name(isa)) + "), 2 threads");
  }
  EXPECT_THAT((*NewCpuBackend({}))->Description(), HasSubstr("), 1 thread"));
}

TEST(CpuBackendTest, RefusesWhatItCannotRun) {
  EXPECT_EQ(NewCpuBackend({.num_threads = 0}).status().message(),
            "CpuBackend: num_threads is 0, expected 1 to 1024");
  EXPECT_EQ(NewCpuBackend({.num_threads = 100000}).status().message(),
            "CpuBackend: num_threads is 100000, expected 1 to 1024");
  if (cpu::BestIsa() != cpu::Isa::kAmx) {
    const absl::Status status = NewCpuBackend({.isa = cpu::Isa::kAmx}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr("lacks amx"));
  }
}

TEST(CpuBackendTest, MemoryIsAlignedAndCopiesMoveBytes) {
  auto backend = *NewCpuBackend({});
  auto stream = *backend->NewStream();
  for (size_t size : {size_t{0}, size_t{1}, size_t{63}, size_t{5} << 20}) {
    auto buffer = *backend->Allocate(size);
    EXPECT_EQ(buffer->size_bytes(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
    std::vector<uint8_t> sent(size), received(size);
    for (size_t i = 0; i < size; ++i) sent[i] = static_cast<uint8_t>(i * 7);
    EXPECT_TRUE(
        backend->CopyToDevice(buffer->data(), sent.data(), size, *stream).ok());
    EXPECT_TRUE(
        backend->CopyToHost(received.data(), buffer->data(), size, *stream)
            .ok());
    EXPECT_EQ(received, sent);
    EXPECT_TRUE(backend->Zero(buffer->data(), size, *stream).ok());
    EXPECT_TRUE(
        backend->CopyToHost(received.data(), buffer->data(), size, *stream)
            .ok());
    EXPECT_EQ(received, std::vector<uint8_t>(size));
  }
  const absl::Status status = backend->Allocate(size_t{1} << 60).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("1152921504606846976"));
}

TEST(CpuBackendTest, StreamsAndEventsMustBeItsOwn) {
  auto backend = *NewCpuBackend({});
  auto stream = *backend->NewStream();
  auto event = *backend->NewEvent();
  EXPECT_TRUE(backend->Record(*event, *stream).ok());
  EXPECT_TRUE(backend->Wait(*event, *stream).ok());
  EXPECT_TRUE(backend->Synchronize(*stream).ok());
  ForeignStream foreign_stream;
  ForeignEvent foreign_event;
  char byte = 0;
  for (const absl::Status& status : {backend->Record(foreign_event, *stream),
                                     backend->Wait(*event, foreign_stream),
                                     backend->Synchronize(foreign_stream),
                                     backend->Zero(&byte, 1, foreign_stream)}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("another backend's"));
  }
}

TEST(CpuBackendTest, PackedRowsComeBackAndMultiply) {
  Random random(4);
  for (cpu::Isa isa : cpu::SupportedIsas()) {
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      auto backend = *NewCpuBackend({.num_threads = 2, .isa = isa});
      auto stream = *backend->NewStream();
      const std::vector<float> w = ToFloats(test::ToBF16(random.Floats(9 * 7)));
      const std::vector<float> x = ToFloats(test::ToBF16(random.Floats(3 * 7)));
      auto matrix = *backend->NewPackedMatrix(dtype, 9, 7);
      ASSERT_TRUE(
          backend
              ->PackRows(*matrix, 0, ConstTensor(w.data(), DType::kF32, {9, 7}))
              .ok());
      std::vector<BF16> narrow(4 * 7);
      std::vector<float> wide(4 * 7);
      void* rows = dtype == DType::kF32 ? static_cast<void*>(wide.data())
                                        : static_cast<void*>(narrow.data());
      ASSERT_TRUE(
          backend->UnpackRows(*matrix, 5, Tensor(rows, dtype, {4, 7})).ok());
      if (dtype == DType::kBF16) wide = ToFloats(narrow);
      EXPECT_EQ(FirstMismatch(wide, absl::MakeConstSpan(w).subspan(5 * 7)), "");

      const std::vector<BF16> x_narrow = test::ToBF16(x);
      const void* x_data = dtype == DType::kF32
                               ? static_cast<const void*>(x.data())
                               : static_cast<const void*>(x_narrow.data());
      std::vector<float> out(3 * 9, 1.0f);
      ASSERT_TRUE(backend
                      ->Gemm(ConstTensor(x_data, dtype, {3, 7}), *matrix, true,
                             Tensor(out.data(), DType::kF32, {3, 9}), *stream)
                      .ok());
      Values expected = MatMul(ToValues(x), ToValues(w), 7);
      for (double& value : expected) value += 1.0;
      EXPECT_LT(Compare(ToValues(out), expected).max_relative, 1e-6);
    }
  }
}

}  // namespace
}  // namespace octet::test
