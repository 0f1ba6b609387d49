// Errors of CUDA and cuBLAS as statuses, and the owners of memory.
#include "kernels/cuda/cuda_memory.h"

#include <cstring>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/cuda_status.h"
#include "tests/kernels/cuda/gpu.h"

namespace octet::cuda {
namespace {

using testing::StartsWith;

TEST(CudaStatusTest, KindsAndSentences) {
  EXPECT_TRUE(CudaStatus(cudaSuccess, "cudaFree").ok());
  const std::pair<cudaError_t, absl::StatusCode> kinds[] = {
      {cudaErrorMemoryAllocation, absl::StatusCode::kResourceExhausted},
      {cudaErrorNoDevice, absl::StatusCode::kFailedPrecondition},
      {cudaErrorInsufficientDriver, absl::StatusCode::kFailedPrecondition},
      {cudaErrorLaunchFailure, absl::StatusCode::kInternal}};
  for (const auto& [error, code] : kinds) {
    const absl::Status status = CudaStatus(error, "cudaMalloc of 8 bytes");
    EXPECT_EQ(status.code(), code);
    EXPECT_THAT(std::string(status.message()),
                StartsWith("cudaMalloc of 8 bytes: "));
  }
}

TEST(CudaStatusTest, Cublas) {
  EXPECT_TRUE(CublasStatus(CUBLAS_STATUS_SUCCESS, "cublasLtMatmul").ok());
  const std::pair<cublasStatus_t, absl::StatusCode> kinds[] = {
      {CUBLAS_STATUS_ALLOC_FAILED, absl::StatusCode::kResourceExhausted},
      {CUBLAS_STATUS_NOT_SUPPORTED, absl::StatusCode::kUnimplemented},
      {CUBLAS_STATUS_NOT_INITIALIZED, absl::StatusCode::kFailedPrecondition},
      {CUBLAS_STATUS_EXECUTION_FAILED, absl::StatusCode::kInternal}};
  for (const auto& [error, code] : kinds) {
    EXPECT_EQ(CublasStatus(error, "cublasLtMatmul").code(), code);
  }
  EXPECT_EQ(
      CublasStatus(CUBLAS_STATUS_EXECUTION_FAILED, "cublasLtMatmul").message(),
      "cublasLtMatmul: cuBLAS status 13");
}

TEST(DeviceMemoryTest, OwnsAndMoves) {
  auto memory = DeviceMemory::Allocate(100);
  ASSERT_TRUE(memory.ok());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory->data()) % 256, 0u);
  EXPECT_EQ(memory->size_bytes(), 100u);
  void* const data = memory->data();
  DeviceMemory moved = *std::move(memory);
  EXPECT_EQ(moved.data(), data);
  DeviceMemory other;
  other = std::move(moved);
  EXPECT_EQ(other.data(), data);
  const auto none = DeviceMemory::Allocate(0);
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->data(), nullptr);
}

TEST(DeviceMemoryTest, TooLargeNamesTheSize) {
  const auto memory = DeviceMemory::Allocate(size_t{1} << 60);
  EXPECT_EQ(memory.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(memory.status().message()),
              StartsWith("cudaMalloc of 1152921504606846976 bytes: "));
  EXPECT_EQ(AllocatePinned(size_t{1} << 60).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(StagingBuffers::Create(size_t{1} << 60).ok());
}

// A buffer is given out again only when its copy is over: every chunk arrives.
TEST(StagingBuffersTest, ChunksDoNotOverwriteEachOther) {
  auto staging = StagingBuffers::Create(256);
  ASSERT_TRUE(staging.ok());
  test::Gpu gpu;
  const Tensor memory = gpu.New(DType::kU8, {20 * 256});
  test::Must(cudaStreamSynchronize(gpu.stream()));
  for (int chunk = 0; chunk < 20; ++chunk) {
    auto buffer = (*staging)->Next();
    ASSERT_TRUE(buffer.ok());
    std::memset(*buffer, chunk, 256);
    test::Must((*staging)->Upload(memory.as<uint8_t>() + chunk * 256, 256));
  }
  test::Must((*staging)->Finish());
  for (int chunk = 0; chunk < 20; ++chunk) {
    auto buffer = (*staging)->Next();
    ASSERT_TRUE(buffer.ok());
    test::Must((*staging)->Download(memory.as<uint8_t>() + chunk * 256, 256));
    for (int i = 0; i < 256; ++i) {
      ASSERT_EQ((*buffer)[i], static_cast<std::byte>(chunk));
    }
  }
}

}  // namespace
}  // namespace octet::cuda
