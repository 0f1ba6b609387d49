// A matrix in NF4: what it holds is what kernels/quant/nf4.h says, and every
// product reads exactly what UnpackRows gives, bit for bit, on every
// instruction set of this processor and on emulated AMX tiles.
#include "kernels/cpu/nf4_matrix.h"

#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_backward.h"
#include "kernels/quant/nf4.h"
#include "tests/kernels/gemm_test_util.h"

namespace octet {
namespace {

using cpu::CpuNf4Matrix;
using cpu::GemmWorkspace;
using cpu::ThreadPool;
using test::GemmPath;
using test::Matrix;
using testing::HasSubstr;

constexpr DType kComputeDtypes[] = {DType::kF32, DType::kBF16};

std::unique_ptr<CpuNf4Matrix> Pack(DType dtype, const Matrix& weights,
                                   const std::vector<int64_t>& part_rows) {
  auto matrix = *CpuNf4Matrix::Create(dtype, part_rows, weights.cols());
  EXPECT_TRUE(matrix->PackRows(0, weights.View()).ok());
  return matrix;
}

Matrix Unpack(const CpuNf4Matrix& matrix) {
  Matrix rows(matrix.dtype(), matrix.n(), matrix.k());
  EXPECT_TRUE(matrix.UnpackRows(0, rows.MutableView()).ok());
  return rows;
}

std::vector<std::string> RowsOf(const Matrix& matrix) {
  std::vector<std::string> rows;
  for (int64_t r = 0; r < matrix.rows(); ++r) {
    rows.push_back(matrix.RowBytes(r));
  }
  return rows;
}

// Each part by itself through nf4.h.
Matrix Expected(DType dtype, const Matrix& weights,
                const std::vector<int64_t>& part_rows) {
  Matrix out(dtype, weights.rows(), weights.cols());
  int64_t row_begin = 0;
  for (int64_t rows : part_rows) {
    std::vector<uint8_t> codes(rows * weights.cols());
    std::vector<float> absmax;
    for (size_t i = 0; i < codes.size(); i += kNf4Block) {
      float block[kNf4Block];
      for (int64_t j = 0; j < kNf4Block; ++j) {
        const int64_t at = static_cast<int64_t>(i) + j;
        block[j] = static_cast<float>(
            weights.At(row_begin + at / weights.cols(), at % weights.cols()));
      }
      absmax.push_back(QuantizeNf4Block(block, &codes[i]));
    }
    const Nf4Scales scales = QuantizeNf4Scales(absmax);
    for (size_t i = 0; i < codes.size(); ++i) {
      const int64_t at = static_cast<int64_t>(i);
      out.Set(row_begin + at / weights.cols(), at % weights.cols(),
              kNf4Levels[codes[i]] * scales.Absmax(at / kNf4Block));
    }
    row_begin += rows;
  }
  return out;
}

TEST(CpuNf4MatrixTest, HoldsTheQuantisedParts) {
  for (DType dtype : kComputeDtypes) {
    for (DType source : {DType::kF32, DType::kBF16}) {
      for (const std::vector<int64_t>& parts :
           {std::vector<int64_t>{75}, std::vector<int64_t>{33, 1, 41},
            std::vector<int64_t>{0, 75}}) {
        const Matrix weights = Matrix::Random(source, 75, 320, 3);
        EXPECT_EQ(RowsOf(Unpack(*Pack(dtype, weights, parts))),
                  RowsOf(Expected(dtype, weights, parts)));
      }
    }
  }
}

TEST(CpuNf4MatrixTest, RowsComeInAnyOrder) {
  const Matrix weights = Matrix::Random(DType::kF32, 75, 128, 3);
  auto matrix =
      *CpuNf4Matrix::Create(DType::kBF16, std::vector<int64_t>{40, 35}, 128);
  for (int64_t begin : {50, 0, 25}) {
    EXPECT_EQ(matrix->CheckReadable().code(),
              absl::StatusCode::kFailedPrecondition);
    ASSERT_TRUE(matrix->PackRows(begin, weights.ViewOf(begin, 25)).ok());
  }
  EXPECT_TRUE(matrix->CheckReadable().ok());
  EXPECT_EQ(RowsOf(Unpack(*matrix)),
            RowsOf(Unpack(*Pack(DType::kBF16, weights, {40, 35}))));
}

TEST(CpuNf4MatrixTest, MistakesAreNamed) {
  EXPECT_THAT(CpuNf4Matrix::Create(DType::kBF16, std::vector<int64_t>{4}, 96)
                  .status()
                  .message(),
              HasSubstr("k is 96, expected a multiple of 64"));
  const Matrix weights = Matrix::Random(DType::kF32, 4, 64, 1);
  auto matrix = *CpuNf4Matrix::Create(DType::kF32, std::vector<int64_t>{4}, 64);
  ASSERT_TRUE(matrix->PackRows(1, weights.ViewOf(1, 2)).ok());
  EXPECT_THAT(matrix->PackRows(2, weights.ViewOf(2, 2)).message(),
              HasSubstr("row 2 is written again"));
  Matrix out(DType::kF32, 4, 64);
  EXPECT_THAT(matrix->UnpackRows(0, out.MutableView()).message(),
              HasSubstr("2 of 4 rows are missing"));
}

// 4 bits, an absmax of a byte for 64 and a scale of 4 bytes for 16384 weights.
TEST(CpuNf4MatrixTest, TakesHalfAByteAndAnEighthOfABit) {
  auto matrix =
      *CpuNf4Matrix::Create(DType::kBF16, std::vector<int64_t>{512}, 2048);
  EXPECT_EQ(matrix->size_bytes(), 512 * 2048 / 2 + 512 * 32 + 512 * 32 / 64);
}

class Nf4GemmTest : public testing::TestWithParam<GemmPath> {
 protected:
  ThreadPool pool_{2};
  GemmWorkspace workspace_ = GetParam().Workspace(&pool_);
};

INSTANTIATE_TEST_SUITE_P(Paths, Nf4GemmTest,
                         testing::ValuesIn(test::AllGemmPaths()),
                         [](const auto& info) { return info.param.name; });

TEST_P(Nf4GemmTest, ProductsEqualThoseOfTheDequantisedWeights) {
  for (DType dtype : kComputeDtypes) {
    const auto nf4 =
        Pack(dtype, Matrix::Random(DType::kF32, 150, 448, 1), {75, 75});
    const auto plain = Unpack(*nf4).Pack();
    for (int64_t rows : {1, 13, 300}) {
      const Matrix x = Matrix::Random(dtype, rows, 448, 2);
      const Matrix dy = Matrix::Random(dtype, rows, 150, 3);
      Matrix out[2] = {Matrix(DType::kF32, rows, 150),
                       Matrix(DType::kF32, rows, 150)};
      Matrix dx[2] = {Matrix(DType::kF32, rows, 448),
                      Matrix(DType::kF32, rows, 448)};
      for (int i : {0, 1}) {
        const PackedMatrix* w = nf4.get();
        if (i == 1) w = plain.get();
        ASSERT_TRUE(
            Gemm(x.View(), *w, false, out[i].MutableView(), workspace_).ok());
        ASSERT_TRUE(GemmBackwardInput(dy.View(), *w, false, dx[i].MutableView(),
                                      workspace_)
                        .ok());
      }
      EXPECT_EQ(RowsOf(out[0]), RowsOf(out[1]));
      EXPECT_EQ(RowsOf(dx[0]), RowsOf(dx[1]));
    }
  }
}

// Experts of which some are quantised.
TEST_P(Nf4GemmTest, GroupsEqualThoseOfTheDequantisedWeights) {
  for (DType dtype : kComputeDtypes) {
    const auto nf4 =
        Pack(dtype, Matrix::Random(DType::kF32, 90, 192, 1), {45, 45});
    const auto plain = Unpack(*nf4).Pack();
    const std::vector<const PackedMatrix*> mixed = {nf4.get(), plain.get(),
                                                    nf4.get()};
    const std::vector<const PackedMatrix*> all_plain(3, plain.get());
    const std::vector<int64_t> offsets = {0, 5, 5, 40};
    const Matrix x = Matrix::Random(dtype, 40, 192, 2);
    for (bool swiglu : {false, true}) {
      const auto run = [&](const std::vector<const PackedMatrix*>& w) {
        Matrix out(dtype, 40, swiglu ? 45 : 90);
        const Tensor to = out.MutableView();
        EXPECT_TRUE(
            (swiglu ? GroupedGemmSwiGlu(x.View(), w, offsets, to, workspace_)
                    : GroupedGemm(x.View(), w, offsets, false, to, workspace_))
                .ok());
        return RowsOf(out);
      };
      EXPECT_EQ(run(mixed), run(all_plain));
    }
  }
}

}  // namespace
}  // namespace octet
