#include "gtest/gtest.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/launch/every_operation.h"

namespace octet {
namespace {

TEST(KernelBenchCudaTest, EveryOperationRunsOnTheEmulatedGpu) {
  auto backend = NewCudaBackend(CudaBackendOptions());
  ASSERT_TRUE(backend.ok()) << backend.status();
  test::ExpectEveryOperationRuns(**backend);
}

}  // namespace
}  // namespace octet
