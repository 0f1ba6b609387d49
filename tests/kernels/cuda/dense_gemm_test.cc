// Dense products by cuBLASLt with one pinned algorithm. The emulated heuristic
// gives another order of summation for another number of rows, as a real one
// does, so a product that is not pinned shows.
#include "kernels/cuda/dense_gemm.h"

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "tests/kernels/cuda/dense_gemm_harness.h"

namespace octet::test {
namespace {

using cuda::DenseShape;
using cuda::RowBits;

TEST_F(DenseGemmTest, ValuesMatchTheReference) {
  for (DType dtype : kComputeDtypes) {
    for (DType out_dtype : kComputeDtypes) {
      for (bool accumulate : {false, true}) {
        if (accumulate && out_dtype == DType::kBF16) continue;
        const Matrix x = Matrix::Random(dtype, 9, 72, 1);
        const Matrix w = Matrix::Random(dtype, 40, 72, 2);
        const Matrix before = Matrix::Random(DType::kF32, 9, 40, 3);
        const Matrix out = Product(*gemm_, x, *Pack(w), out_dtype,
                                   accumulate ? &before : nullptr);
        for (int64_t r = 0; r < 9; ++r) {
          for (int64_t c = 0; c < 40; ++c) {
            Bounded expected = Dot(x, r, w, c);
            if (accumulate) expected.value += before.At(r, c);
            expected.error += std::ldexp(std::fabs(expected.value),
                                         out_dtype == DType::kF32 ? -23 : -8);
            ASSERT_LE(std::fabs(out.At(r, c) - expected.value), expected.error);
          }
        }
      }
    }
  }
  EXPECT_EQ(gemm_->num_shapes(), 4);
}

TEST_F(DenseGemmTest, RowAloneEqualsRowInAnyBatch) {
  for (DType dtype : kComputeDtypes) {
    const Matrix x = Matrix::Random(dtype, 90, 104, 1);
    const auto w = Pack(Matrix::Random(dtype, 24, 104, 2));
    const Matrix all = Product(*gemm_, x, *w, DType::kF32);
    for (int64_t size : {1, 2, 5, 16, 40, 89}) {
      for (int64_t begin : {int64_t{0}, 90 - size}) {
        EXPECT_EQ(FirstMismatch(
                      Product(*gemm_, RowsOf(x, begin, size), *w, DType::kF32),
                      RowsOf(all, begin, size)),
                  "");
      }
    }
  }
  EXPECT_EQ(gemm_->num_cublas_shapes(), gemm_->num_shapes());
}

TEST_F(DenseGemmTest, OtherShapesAndTheOptionUseTheOwnKernel) {
  const Matrix x = Matrix::Random(DType::kBF16, 5, 35, 1);
  const auto odd = Pack(Matrix::Random(DType::kBF16, 7, 35, 2));
  EXPECT_EQ(FirstMismatch(Product(*gemm_, x, *odd, DType::kF32),
                          Run(x, {odd.get()}, {0, 5}, {})),
            "");
  EXPECT_EQ(gemm_->num_shapes(), 0);
  const auto own = NewGemm({.use_cublas = false});
  const Matrix even = Matrix::Random(DType::kBF16, 5, 64, 1);
  const auto w = Pack(Matrix::Random(DType::kBF16, 8, 64, 2));
  EXPECT_EQ(FirstMismatch(Product(*own, even, *w, DType::kF32),
                          Run(even, {w.get()}, {0, 5}, {})),
            "");
  EXPECT_EQ(own->num_shapes(), 0);
}

TEST_F(DenseGemmTest, AMatrixOfZerosDecidesNothing) {
  const Matrix x = Matrix::Random(DType::kBF16, 3, 64, 1);
  const Matrix zeros(DType::kBF16, 8, 64);
  const Matrix out = Product(*gemm_, x, *Pack(zeros), DType::kF32);
  EXPECT_EQ(out.At(2, 7), 0.0);
  EXPECT_EQ(gemm_->num_shapes(), 0);
  Product(*gemm_, x, *Pack(Matrix::Random(DType::kBF16, 8, 64, 2)),
          DType::kF32);
  EXPECT_EQ(gemm_->num_cublas_shapes(), 1);
}

TEST_F(DenseGemmTest, NoRowsAndOddAddresses) {
  const auto w = Pack(Matrix::Random(DType::kBF16, 8, 64, 2));
  const Tensor x = gpu_.New(DType::kBF16, {3 * 64 + 8});
  const Tensor out = gpu_.New(DType::kF32, {3 * 8 + 8});
  const auto product = [&](int x_shift, int out_shift, int64_t rows) {
    return gemm_->Gemm(
        ConstTensor(x.as<uint16_t>() + x_shift, DType::kBF16, {rows, 64}), *w,
        false, Tensor(out.as<float>() + out_shift, DType::kF32, {rows, 8}),
        gpu_.stream());
  };
  EXPECT_TRUE(product(0, 0, 0).ok());
  EXPECT_EQ(gemm_->num_shapes(), 0);
  EXPECT_TRUE(product(8, 4, 3).ok());
  EXPECT_EQ(product(1, 0, 3).message(),
            "Gemm: x is at an address that is no multiple of 16 bytes, as "
            "cuBLASLt needs for this shape");
  EXPECT_TRUE(absl::StartsWith(product(0, 1, 3).message(), "Gemm: out is at"));
  Must(cudaStreamSynchronize(gpu_.stream()));
}

class ExamineRowBitsTest : public GemmTestBase {
 protected:
  ExamineRowBitsTest()
      : w_(Pack(Matrix::Random(DType::kF32, 8, 200, 1))),
        shape_{DType::kF32, 8, 200, w_->ld(), false},
        own_(*cuda::GemmLauncher::Create()) {}

  absl::Status Multiply(const void* x, int64_t rows, void* out,
                        cudaStream_t stream) {
    return own_.Gemm(ConstTensor(x, DType::kF32, {rows, 200}), *w_, false,
                     Tensor(out, DType::kF32, {rows, 8}), stream);
  }

  std::unique_ptr<cuda::CudaPackedMatrix> w_;
  const DenseShape shape_;
  const cuda::GemmLauncher own_;
};

TEST_F(ExamineRowBitsTest, FindsWhatDependsOnTheBatch) {
  const auto steady = [&](const void* x, int64_t rows, void* out,
                          cudaStream_t stream) {
    return Multiply(x, rows, out, stream);
  };
  EXPECT_EQ(*cuda::ExamineRowBits(shape_, 300, steady), RowBits::kKept);
  // One bit of one element, in one size of batch.
  for (int64_t odd_size : {1, 16, 33, 257, 300}) {
    const auto unsteady = [&](const void* x, int64_t rows, void* out,
                              cudaStream_t stream) -> absl::Status {
      const absl::Status status = Multiply(x, rows, out, stream);
      if (rows == odd_size) {
        Must(cudaMemsetAsync(static_cast<char*>(out) + rows * 32 - 4, 1, 1,
                             stream));
      }
      return status;
    };
    EXPECT_EQ(*cuda::ExamineRowBits(shape_, 300, unsteady), RowBits::kLost)
        << odd_size;
  }
}

TEST_F(ExamineRowBitsTest, PassesErrorsOn) {
  EXPECT_EQ(
      *cuda::ExamineRowBits(shape_, 300,
                            [](const void*, int64_t, void*, cudaStream_t) {
                              return absl::UnimplementedError("not this shape");
                            }),
      RowBits::kLost);
  EXPECT_EQ(cuda::ExamineRowBits(shape_, 300,
                                 [](const void*, int64_t, void*, cudaStream_t) {
                                   return absl::InternalError("broken");
                                 })
                .status()
                .message(),
            "broken");
  EXPECT_EQ(
      *cuda::ExamineRowBits(shape_, 300,
                            [](const void*, int64_t, void*, cudaStream_t) {
                              return absl::OkStatus();
                            }),
      RowBits::kUnknown);
}

}  // namespace
}  // namespace octet::test
