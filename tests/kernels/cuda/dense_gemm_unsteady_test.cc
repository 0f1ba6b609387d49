// The way back from cuBLASLt to the own kernel. Runs with an emulated cuBLASLt
// whose order of summation follows the number of rows even when the algorithm
// is pinned (CUDA_EMU_VARY_GEMM=2).
#include <string>

#include "gtest/gtest.h"
#include "tests/kernels/cuda/dense_gemm_harness.h"

namespace octet::test {
namespace {

TEST_F(DenseGemmTest, UnsteadyAlgorithmsAreNotUsed) {
  const Matrix x = Matrix::Random(DType::kBF16, 20, 104, 1);
  const auto w = Pack(Matrix::Random(DType::kBF16, 24, 104, 2));
  const Matrix zeros(DType::kF32, 20, 24);
  testing::internal::CaptureStderr();
  const Matrix plain = Product(*gemm_, x, *w, DType::kF32);
  const Matrix added = Product(*gemm_, x, *w, DType::kF32, &zeros);
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(gemm_->num_shapes(), 2);
  EXPECT_EQ(gemm_->num_cublas_shapes(), 0);
  const size_t warning = log.find("cuBLASLt has no algorithm for products");
  ASSERT_NE(warning, std::string::npos) << log;
  EXPECT_EQ(log.find("cuBLASLt has no algorithm", warning + 1),
            std::string::npos)
      << "warned twice";
  const Matrix own = Run(x, {w.get()}, {0, 20}, {});
  EXPECT_EQ(FirstMismatch(plain, own), "");
  EXPECT_EQ(FirstMismatch(added, own), "");
}

}  // namespace
}  // namespace octet::test
