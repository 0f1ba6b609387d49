// Dense products by cuBLASLt with one pinned algorithm. The emulated heuristic
// gives another order of summation for another number of rows, as a real one
// does, so a product that is not pinned shows.
#include "kernels/cuda/dense_gemm.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "tests/kernels/cuda/dense_gemm_harness.h"
#include "tests/kernels/shape_count.h"
#include "tests/reference/host_tensor.h"

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
        ExpectProduct(Product(*gemm_, x, *Pack(w), out_dtype,
                              accumulate ? &before : nullptr),
                      x, w, accumulate ? &before : nullptr);
      }
    }
  }
  EXPECT_EQ(gemm_->num_shapes(), 4);
}

// Most shapes are cuBLASLt's; those whose rows are no multiples of 16 bytes are
// the own kernel's, and so are products rounded to bf16.
TEST_F(DenseGemmTest, RandomShapesMatchTheReference) {
  const auto gemm = NewGemm({.examined_rows = 33});
  ShapeCount shapes;
  int num_for_cublas = 0;
  for (int trial = 0; trial < 40; ++trial) {
    Random random(trial);
    const DType dtype = kComputeDtypes[trial % 2];
    const bool fits = trial % 4 < 3;
    const int64_t rows = trial < 2 ? trial : random.Integer(1, 40);
    const int64_t n = fits ? 4 * random.Integer(1, 20) : random.Integer(1, 80);
    const int64_t k = fits ? 8 * random.Integer(1, 16) : random.Integer(1, 130);
    const bool accumulate = random.Integer(0, 1);
    const DType out_dtype =
        accumulate || random.Integer(0, 3) ? DType::kF32 : DType::kBF16;
    shapes.Add(rows, {n, k, trial % 2, accumulate});
    SCOPED_TRACE(testing::Message()
                 << Name(dtype) << " T " << rows << " n " << n << " k " << k);
    const Matrix x = Matrix::Random(dtype, rows, k, 3 * trial);
    const Matrix w = Matrix::Random(dtype, n, k, 3 * trial + 1);
    const Matrix before = Matrix::Random(DType::kF32, rows, n, 3 * trial + 2);
    ExpectProduct(
        Product(*gemm, x, *Pack(w), out_dtype, accumulate ? &before : nullptr),
        x, w, accumulate ? &before : nullptr);
    ASSERT_FALSE(HasFailure());
    const int64_t unit = 16 / static_cast<int64_t>(SizeOf(dtype));
    if (rows > 0 && n % 4 == 0 && k % unit == 0 && out_dtype == DType::kF32) {
      ++num_for_cublas;
    }
  }
  shapes.Check();
  EXPECT_GE(num_for_cublas, 15);
  EXPECT_EQ(gemm->num_cublas_shapes(), num_for_cublas);
}

// One algorithm for the product and another for the sum: what was chosen first
// must not serve both.
TEST_F(DenseGemmTest, PlainAndAccumulatedProductsAreShapesOfTheirOwn) {
  for (const bool accumulate_first : {false, true}) {
    const auto gemm = NewGemm({});
    const Matrix x = Matrix::Random(DType::kBF16, 5, 64, 1);
    const Matrix w = Matrix::Random(DType::kBF16, 16, 64, 2);
    const Matrix before = Matrix::Random(DType::kF32, 5, 16, 3);
    const auto packed = Pack(w);
    for (int i = 0; i < 4; ++i) {
      const bool accumulate = (i % 2 == 0) == accumulate_first;
      const Matrix* const added = accumulate ? &before : nullptr;
      ExpectProduct(Product(*gemm, x, *packed, DType::kF32, added), x, w,
                    added);
    }
    EXPECT_EQ(gemm->num_cublas_shapes(), 2);
  }
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
  const Tensor x = gpu_.Filled(DType::kBF16, {3 * 64 + 8});
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
