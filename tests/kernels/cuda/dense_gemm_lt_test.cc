// One product of cuBLASLt: the rows that a call asks for and no others, by the
// algorithm that was pinned.
#include "kernels/cuda/dense_gemm_lt.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/cuda/gemm_harness.h"

namespace octet::test {
namespace {

using cuda::LtProduct;

class LtProductTest : public GemmTestBase {
 protected:
  static constexpr int64_t kN = 12, kK = 200, kReferenceRows = 64;

  LtProductTest()
      : handle_(*cuda::NewLtHandle()),
        packed_(Pack(w_)),
        product_(New(false)) {}

  LtProduct New(bool accumulate) {
    auto product = LtProduct::Create(
        handle_.get(), {DType::kF32, kN, kK, packed_->ld(), accumulate},
        kReferenceRows);
    Must(product.status());
    return *std::move(product);
  }

  // x [T, kK] times W, with nothing behind x's rows and 0xff behind out's.
  Matrix Multiply(LtProduct& product, const Matrix& x,
                  const Matrix* before = nullptr) {
    const Tensor memory =
        gpu_.New(DType::kF32, {x.rows() * kN + kReferenceRows * kN});
    Matrix result(DType::kF32, x.rows(), kN);
    const size_t end = result.View().num_bytes();
    FillBeside(memory, 0, end);
    if (before != nullptr) {
      Must(cudaMemcpyAsync(memory.data(), before->View().data(), end,
                           cudaMemcpyHostToDevice, gpu_.stream()));
    }
    Must(product.Run(0, gpu_.Upload(x.View()).data(), x.rows(), packed_->data(),
                     memory.data(), gpu_.stream()));
    gpu_.DownloadTo(Tensor(memory.data(), DType::kF32, {x.rows(), kN}),
                    result.MutableView());
    EXPECT_EQ(
        gpu_.Download<uint32_t>(Tensor(static_cast<char*>(memory.data()) + end,
                                       DType::kF32, {kReferenceRows * kN})),
        std::vector<uint32_t>(kReferenceRows * kN, 0xffffffffu))
        << "rows beyond " << x.rows() << " were written";
    return result;
  }

  const Matrix w_ = Matrix::Random(DType::kF32, kN, kK, 1);
  const cuda::LtHandle handle_;
  const std::unique_ptr<cuda::CudaPackedMatrix> packed_;
  LtProduct product_;
};

// Fewer rows than the heuristic was asked about, as many, and more.
TEST_F(LtProductTest, MultipliesTheRowsOfTheCall) {
  for (int64_t rows : {int64_t{1}, int64_t{5}, kReferenceRows, int64_t{97}}) {
    SCOPED_TRACE(rows);
    const Matrix x = Matrix::Random(DType::kF32, rows, kK, 2);
    ExpectProduct(Multiply(product_, x), x, w_, nullptr);
  }
}

TEST_F(LtProductTest, AddsToWhatIsThere) {
  LtProduct product = New(/*accumulate=*/true);
  const Matrix x = Matrix::Random(DType::kF32, 7, kK, 2);
  const Matrix before = Matrix::Random(DType::kF32, 7, kN, 3);
  ExpectProduct(Multiply(product, x, &before), x, w_, &before);
}

// The emulated heuristic gives neighbouring numbers of rows different orders of
// summation; the pinned algorithm has one.
TEST_F(LtProductTest, KeepsItsAlgorithmForEveryNumberOfRows) {
  ASSERT_GE(product_.num_algorithms(), 1);
  const Matrix x = Matrix::Random(DType::kF32, kReferenceRows, kK, 4);
  const Matrix all = Multiply(product_, x);
  for (int64_t rows : {1, 2, 3, 4, 62, 63}) {
    EXPECT_EQ(FirstMismatch(Multiply(product_, RowsOf(x, 0, rows)),
                            RowsOf(all, 0, rows)),
              "")
        << rows << " rows";
  }
}

}  // namespace
}  // namespace octet::test
