// cuBLAS and cuBLASLt: the right products, and wrong calls refused with a
// reason.

#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "tests/cuda_emulation/include/cuda_emu/control.h"
#include "tests/cuda_emulation/selftest/device_buffer.h"

namespace cuda_emu_selftest {
namespace {

using testing::HasSubstr;

constexpr int kM = 24;  // rows of x
constexpr int kN = 40;
constexpr int kK = 56;

class BlasTest : public testing::Test {
 protected:
  BlasTest()
      : x_(Numbers(kM * kK)),
        w_(Numbers(kN * kK)),
        device_x_(x_),
        device_w_(w_),
        device_y_(kM * kN) {
    cuda_emu::Reset();
    cublasCreate(&blas_);
    cublasLtCreate(&lt_);
    cublasLtMatmulDescCreate(&desc_, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    cublasLtMatmulPreferenceCreate(&preference_);
  }
  ~BlasTest() override {
    cublasDestroy(blas_);
    cublasLtDestroy(lt_);
    cublasLtMatmulDescDestroy(desc_);
    cublasLtMatmulPreferenceDestroy(preference_);
    for (auto layout : layouts_) cublasLtMatrixLayoutDestroy(layout);
  }

  // Integers, so that every order of summation gives the same.
  std::vector<__nv_bfloat16> Numbers(int count) {
    std::vector<__nv_bfloat16> v(count);
    for (auto& e : v) e = __float2bfloat16(static_cast<int>(random_() % 9) - 4);
    return v;
  }

  cublasLtMatrixLayout_t Layout(cudaDataType type, int rows, int cols, int ld,
                                int32_t order = CUBLASLT_ORDER_COL) {
    cublasLtMatrixLayout_t layout;
    cublasLtMatrixLayoutCreate(&layout, type, rows, cols, ld);
    cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_ORDER,
                                     &order, sizeof(order));
    layouts_.push_back(layout);
    return layout;
  }

  // y = x w^T, all row major.
  void ExpectProduct() {
    const std::vector<float> y = device_y_.ToHost();
    for (int i = 0; i < kM; ++i) {
      for (int j = 0; j < kN; ++j) {
        float sum = 0;
        for (int k = 0; k < kK; ++k) {
          sum += __bfloat162float(x_[i * kK + k]) *
                 __bfloat162float(w_[j * kK + k]);
        }
        ASSERT_EQ(y[i * kN + j], sum) << i << "," << j;
      }
    }
    EXPECT_EQ(cuda_emu::ErrorCount(), 0) << cuda_emu::LastMessage();
  }

  cublasStatus_t GemmEx(int lda) {
    return cublasGemmEx(blas_, CUBLAS_OP_T, CUBLAS_OP_N, kN, kM, kK, &one_,
                        device_w_.data(), CUDA_R_16BF, lda, device_x_.data(),
                        CUDA_R_16BF, kK, &zero_, device_y_.data(), CUDA_R_32F,
                        kN, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
  }

  // With row-major layouts; `x` may be shifted, `algo` null.
  cublasStatus_t LtMatmul(const __nv_bfloat16* x,
                          const cublasLtMatmulAlgo_t* algo, void* workspace,
                          size_t workspace_bytes, int rows = kM) {
    const int32_t transpose = CUBLAS_OP_T;
    cublasLtMatmulDescSetAttribute(desc_, CUBLASLT_MATMUL_DESC_TRANSB,
                                   &transpose, sizeof(transpose));
    auto lx = Layout(CUDA_R_16BF, rows, kK, kK, CUBLASLT_ORDER_ROW);
    auto lw = Layout(CUDA_R_16BF, kN, kK, kK, CUBLASLT_ORDER_ROW);
    auto ly = Layout(CUDA_R_32F, rows, kN, kN, CUBLASLT_ORDER_ROW);
    return cublasLtMatmul(lt_, desc_, &one_, x, lx, device_w_.data(), lw,
                          &zero_, device_y_.data(), ly, device_y_.data(), ly,
                          algo, workspace, workspace_bytes, nullptr);
  }

  cublasLtMatmulHeuristicResult_t Heuristic(uint64_t workspace_bytes) {
    cublasLtMatmulPreferenceSetAttribute(
        preference_, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
        sizeof(workspace_bytes));
    auto l = Layout(CUDA_R_32F, kM, kN, kM);
    cublasLtMatmulHeuristicResult_t result;
    int count = 0;
    cublasLtMatmulAlgoGetHeuristic(lt_, desc_, l, l, l, l, preference_, 1,
                                   &result, &count);
    EXPECT_EQ(count, 1);
    return result;
  }

  std::mt19937 random_{5};
  const float one_ = 1.0f;
  const float zero_ = 0.0f;
  std::vector<__nv_bfloat16> x_;
  std::vector<__nv_bfloat16> w_;
  DeviceBuffer<__nv_bfloat16> device_x_;
  DeviceBuffer<__nv_bfloat16> device_w_;
  DeviceBuffer<float> device_y_;
  cublasHandle_t blas_;
  cublasLtHandle_t lt_;
  cublasLtMatmulDesc_t desc_;
  cublasLtMatmulPreference_t preference_;
  std::vector<cublasLtMatrixLayout_t> layouts_;
};

TEST_F(BlasTest, GemmExMultiplies) {
  ASSERT_EQ(GemmEx(kK), CUBLAS_STATUS_SUCCESS);
  ExpectProduct();
}

TEST_F(BlasTest, LtMatmulMultipliesRowMajor) {
  ASSERT_EQ(LtMatmul(device_x_.data(), nullptr, nullptr, 0),
            CUBLAS_STATUS_SUCCESS);
  ExpectProduct();
}

TEST_F(BlasTest, LtMatmulTakesAnAlgorithmWithWorkspace) {
  const auto result = Heuristic(1 << 20);
  ASSERT_GT(result.workspaceSize, 0u);
  const DeviceBuffer<char> workspace(result.workspaceSize);
  ASSERT_EQ(LtMatmul(device_x_.data(), &result.algo, workspace.data(),
                     result.workspaceSize),
            CUBLAS_STATUS_SUCCESS);
  ExpectProduct();
}

TEST_F(BlasTest, RefusesAShortLeadingDimension) {
  EXPECT_EQ(GemmEx(kK - 1), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_THAT(cuda_emu::LastMessage(), HasSubstr("leading dimension is 55"));
}

TEST_F(BlasTest, RefusesAMatrixPastItsAllocation) {
  EXPECT_EQ(LtMatmul(device_x_.data(), nullptr, nullptr, 0, kM + 1),
            CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_THAT(cuda_emu::LastMessage(),
              HasSubstr("not inside one live device allocation"));
}

TEST_F(BlasTest, RefusesTooLittleWorkspace) {
  const auto result = Heuristic(1 << 20);
  EXPECT_EQ(LtMatmul(device_x_.data(), &result.algo, nullptr, 0),
            CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_THAT(cuda_emu::LastMessage(), HasSubstr("workspace"));
}

TEST_F(BlasTest, RefusesLessAlignmentThanTheAlgorithmAssumes) {
  const auto result = Heuristic(0);
  EXPECT_EQ(LtMatmul(device_x_.data() + 8, &result.algo, nullptr, 0, kM - 1),
            CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_THAT(cuda_emu::LastMessage(), HasSubstr("not aligned to the 256"));
}

TEST_F(BlasTest, RefusesShapesThatDoNotFit) {
  auto square = Layout(CUDA_R_16BF, 8, 8, 8);
  auto wide = Layout(CUDA_R_16BF, 9, 8, 9);
  auto out = Layout(CUDA_R_32F, 8, 8, 8);
  EXPECT_EQ(
      cublasLtMatmul(lt_, desc_, &one_, device_x_.data(), square,
                     device_w_.data(), wide, &zero_, device_y_.data(), out,
                     device_y_.data(), out, nullptr, nullptr, 0, nullptr),
      CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_THAT(cuda_emu::LastMessage(), HasSubstr("do not fit"));
}

}  // namespace
}  // namespace cuda_emu_selftest
