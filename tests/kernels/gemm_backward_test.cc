// Gradients of the matrix products against a naive double-precision reference,
// and what their bits depend on, on every instruction set of this processor and
// on emulated AMX tiles.
#include "kernels/cpu/gemm_backward.h"

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/gemm.h"
#include "tests/kernels/gemm_test_util.h"

namespace octet {
namespace {

using cpu::CpuPackedMatrix;
using cpu::GemmWorkspace;
using cpu::ThreadPool;
using test::Bounded;
using test::GemmPath;
using test::Matrix;

constexpr DType kComputeDtypes[] = {DType::kF32, DType::kBF16};

// The oracle works on x W^T: transposed operands make every product one.
Matrix Transposed(const Matrix& matrix) {
  Matrix out(matrix.dtype(), matrix.cols(), matrix.rows());
  for (int64_t r = 0; r < matrix.rows(); ++r) {
    for (int64_t c = 0; c < matrix.cols(); ++c) {
      out.Set(c, r, static_cast<float>(matrix.At(r, c)));
    }
  }
  return out;
}

std::vector<std::string> RowsOf(const Matrix& matrix) {
  std::vector<std::string> rows;
  for (int64_t r = 0; r < matrix.rows(); ++r) {
    rows.push_back(matrix.RowBytes(r));
  }
  return rows;
}

// Sizes around every block: 1, odd, and neighbours of 16, 32 and 64.
int64_t RandomSize(std::mt19937& random, int64_t max) {
  constexpr int64_t kEdges[] = {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65};
  const int64_t size = random() % 2 == 0
                           ? kEdges[random() % std::size(kEdges)]
                           : 1 + static_cast<int64_t>(random() % max);
  return std::min(size, max);
}

void ExpectWithin(double actual, const Bounded& expected, int64_t row,
                  int64_t col) {
  ASSERT_LE(std::fabs(actual - expected.value), expected.error)
      << "row " << row << " column " << col << ": " << actual << " instead of "
      << expected.value;
}

// scale times a sum, added to `before`: one rounding each.
Bounded Finished(Bounded sum, float scale, double before) {
  sum.value = scale * sum.value + before;
  sum.error = std::fabs(scale) * sum.error +
              std::ldexp(std::fabs(sum.value) + std::fabs(before), -22);
  return sum;
}

class GemmBackwardTest : public testing::TestWithParam<GemmPath> {
 protected:
  Matrix Input(ConstTensor dy, const PackedMatrix& w, int num_threads = 2) {
    ThreadPool pool(num_threads);
    GemmWorkspace workspace = GetParam().Workspace(&pool);
    Matrix dx(DType::kF32, dy.dim(0), w.k());
    EXPECT_TRUE(
        GemmBackwardInput(dy, w, false, dx.MutableView(), workspace).ok());
    return dx;
  }
  Matrix Weight(ConstTensor x, ConstTensor dy, int num_threads = 2) {
    ThreadPool pool(num_threads);
    GemmWorkspace workspace = GetParam().Workspace(&pool);
    Matrix dw(DType::kF32, dy.dim(1), x.dim(1));
    EXPECT_TRUE(
        GemmBackwardWeight(x, dy, 1.0f, false, dw.MutableView(), workspace)
            .ok());
    return dw;
  }

  ThreadPool pool_{2};
  GemmWorkspace workspace_ = GetParam().Workspace(&pool_);
};

INSTANTIATE_TEST_SUITE_P(Paths, GemmBackwardTest,
                         testing::ValuesIn(test::AllGemmPaths()),
                         [](const auto& info) { return info.param.name; });

TEST_P(GemmBackwardTest, InputMatchesTheReference) {
  std::mt19937 random(7);
  for (int trial = 0; trial < 36; ++trial) {
    const DType dtype = kComputeDtypes[trial % 2];
    const int64_t rows = RandomSize(random, 50);
    const int64_t n = RandomSize(random, trial % 6 < 2 ? 700 : 200);
    const int64_t k = RandomSize(random, 200);
    SCOPED_TRACE(testing::Message()
                 << Name(dtype) << " T " << rows << " n " << n << " k " << k);
    const Matrix dy = Matrix::Random(dtype, rows, n, trial);
    const Matrix w = Matrix::Random(dtype, n, k, 1000 + trial);
    const Matrix w_transposed = Transposed(w);
    const bool accumulate = trial % 3 == 0;
    Matrix dx = Matrix::Random(DType::kF32, rows, k, 2000);
    const Matrix before = dx;
    ASSERT_TRUE(GemmBackwardInput(dy.View(), *w.Pack(), accumulate,
                                  dx.MutableView(), workspace_)
                    .ok());
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < k; ++c) {
        const Bounded expected = Finished(Dot(dy, r, w_transposed, c), 1.0f,
                                          accumulate ? before.At(r, c) : 0);
        ASSERT_NO_FATAL_FAILURE(ExpectWithin(dx.At(r, c), expected, r, c));
      }
    }
  }
}

TEST_P(GemmBackwardTest, WeightMatchesTheReference) {
  std::mt19937 random(11);
  for (int trial = 0; trial < 36; ++trial) {
    const DType dtype = kComputeDtypes[trial % 2];
    const int64_t rows = RandomSize(random, trial % 6 < 2 ? 700 : 100);
    const int64_t n = RandomSize(random, 150);
    const int64_t k = RandomSize(random, 150);
    SCOPED_TRACE(testing::Message()
                 << Name(dtype) << " T " << rows << " n " << n << " k " << k);
    const Matrix x = Matrix::Random(dtype, rows, k, trial);
    const Matrix dy = Matrix::Random(dtype, rows, n, 1000 + trial);
    const Matrix x_transposed = Transposed(x);
    const Matrix dy_transposed = Transposed(dy);
    const bool accumulate = trial % 3 == 0;
    const float scale = trial % 4 == 0 ? 1.0f : 0.37f;
    Matrix dw = Matrix::Random(DType::kF32, n, k, 2000);
    const Matrix before = dw;
    ASSERT_TRUE(GemmBackwardWeight(x.View(), dy.View(), scale, accumulate,
                                   dw.MutableView(), workspace_)
                    .ok());
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t c = 0; c < k; ++c) {
        const Bounded expected =
            Finished(Dot(dy_transposed, r, x_transposed, c), scale,
                     accumulate ? before.At(r, c) : 0);
        ASSERT_NO_FATAL_FAILURE(ExpectWithin(dw.At(r, c), expected, r, c));
      }
    }
  }
}

// The oracle that shares the inner loops: the product with a W that was packed
// transposed has the same sums in the same order, so the same bits.
TEST_P(GemmBackwardTest, InputEqualsProductWithPackedTranspose) {
  for (DType dtype : kComputeDtypes) {
    for (int64_t rows : {1, 7, 40, 300}) {
      const Matrix dy = Matrix::Random(dtype, rows, 333, 1);
      const Matrix w = Matrix::Random(dtype, 333, 130, 2);
      Matrix expected(DType::kF32, rows, 130);
      ASSERT_TRUE(Gemm(dy.View(), *Transposed(w).Pack(), false,
                       expected.MutableView(), workspace_)
                      .ok());
      EXPECT_EQ(RowsOf(Input(dy.View(), *w.Pack())), RowsOf(expected));
    }
  }
}

TEST_P(GemmBackwardTest, WeightEqualsProductOfTransposes) {
  for (DType dtype : kComputeDtypes) {
    const Matrix x = Matrix::Random(dtype, 301, 70, 1);
    const Matrix dy = Matrix::Random(dtype, 301, 530, 2);
    Matrix expected(DType::kF32, 530, 70);
    ASSERT_TRUE(Gemm(Transposed(dy).View(), *Transposed(x).Pack(), false,
                     expected.MutableView(), workspace_)
                    .ok());
    EXPECT_EQ(RowsOf(Weight(x.View(), dy.View())), RowsOf(expected));
  }
}

TEST_P(GemmBackwardTest, InputRowAloneEqualsRowInAnyBatch) {
  for (DType dtype : kComputeDtypes) {
    const Matrix dy = Matrix::Random(dtype, 520, 300, 1);
    const auto w = Matrix::Random(dtype, 300, 70, 2).Pack();
    const Matrix all = Input(dy.View(), *w);
    for (int64_t size : {1, 2, 5, 12, 13, 33}) {
      const Matrix part = Input(dy.ViewOf(100, size), *w, 1);
      for (int64_t r = 0; r < size; ++r) {
        ASSERT_EQ(part.RowBytes(r), all.RowBytes(100 + r))
            << Name(dtype) << " " << size << " rows, row " << r;
      }
    }
  }
}

// Which columns of dy and x share a call, and the number of threads.
TEST_P(GemmBackwardTest, WeightElementDependsOnItsColumnsOnly) {
  for (DType dtype : kComputeDtypes) {
    const Matrix x = Matrix::Random(dtype, 210, 90, 1);
    const Matrix dy = Matrix::Random(dtype, 210, 300, 2);
    const Matrix all = Weight(x.View(), dy.View());
    EXPECT_EQ(RowsOf(Weight(x.View(), dy.View(), 1)), RowsOf(all));
    EXPECT_EQ(RowsOf(Weight(x.View(), dy.View(), 3)), RowsOf(all));
    for (int64_t column : {0, 131, 299}) {
      Matrix one(dtype, 210, 1);
      for (int64_t r = 0; r < 210; ++r) {
        one.Set(r, 0, static_cast<float>(dy.At(r, column)));
      }
      EXPECT_EQ(Weight(x.View(), one.View()).RowBytes(0), all.RowBytes(column));
    }
  }
}

struct Groups {
  std::vector<Matrix> w;
  std::vector<std::unique_ptr<CpuPackedMatrix>> packed;
  std::vector<const PackedMatrix*> pointers;
  std::vector<int64_t> row_offsets = {0};
};

Groups MakeGroups(DType dtype, int64_t n, int64_t k,
                  const std::vector<int64_t>& sizes) {
  Groups groups;
  for (size_t g = 0; g < sizes.size(); ++g) {
    groups.w.push_back(Matrix::Random(dtype, n, k, 100 + g));
    groups.packed.push_back(groups.w.back().Pack());
    groups.pointers.push_back(groups.packed.back().get());
    groups.row_offsets.push_back(groups.row_offsets.back() + sizes[g]);
  }
  return groups;
}

TEST_P(GemmBackwardTest, GroupsEqualPlainProducts) {
  for (DType dtype : kComputeDtypes) {
    for (const std::vector<int64_t>& sizes :
         {std::vector<int64_t>{}, std::vector<int64_t>{0, 0},
          std::vector<int64_t>{3, 0, 1, 17, 33, 0, 2, 1}}) {
      const Groups groups = MakeGroups(dtype, 77, 45, sizes);
      const int64_t rows = groups.row_offsets.back();
      const Matrix dy = Matrix::Random(dtype, rows, 77, 5);
      Matrix dx(DType::kF32, rows, 45);
      ASSERT_TRUE(GroupedGemmBackwardInput(dy.View(), groups.pointers,
                                           groups.row_offsets, false,
                                           dx.MutableView(), workspace_)
                      .ok());
      for (size_t g = 0; g < sizes.size(); ++g) {
        const int64_t begin = groups.row_offsets[g];
        const Matrix plain =
            Input(dy.ViewOf(begin, sizes[g]), *groups.packed[g]);
        for (int64_t r = 0; r < sizes[g]; ++r) {
          ASSERT_EQ(dx.RowBytes(begin + r), plain.RowBytes(r));
        }
      }
    }
  }
}

// out += in groups: the product, then one addition.
TEST_P(GemmBackwardTest, GroupedAccumulateAddsTheProduct) {
  for (DType dtype : kComputeDtypes) {
    const Groups groups = MakeGroups(dtype, 45, 77, {3, 0, 30});
    const Groups back = MakeGroups(dtype, 77, 45, {3, 0, 30});
    const Matrix x = Matrix::Random(dtype, 33, 77, 5);
    for (bool backward : {false, true}) {
      const auto run = [&](bool accumulate, Matrix& out) {
        const Groups& g = backward ? back : groups;
        const Tensor to = out.MutableView();
        ASSERT_TRUE((backward ? GroupedGemmBackwardInput(
                                    x.View(), g.pointers, g.row_offsets,
                                    accumulate, to, workspace_)
                              : GroupedGemm(x.View(), g.pointers, g.row_offsets,
                                            accumulate, to, workspace_))
                        .ok());
      };
      Matrix product(DType::kF32, 33, 45);
      run(false, product);
      Matrix sum = Matrix::Random(DType::kF32, 33, 45, 9);
      const Matrix before = sum;
      run(true, sum);
      for (int64_t r = 0; r < 33; ++r) {
        for (int64_t c = 0; c < 45; ++c) {
          ASSERT_EQ(static_cast<float>(sum.At(r, c)),
                    static_cast<float>(before.At(r, c)) +
                        static_cast<float>(product.At(r, c)));
        }
      }
    }
  }
}

TEST_P(GemmBackwardTest, Bf16InputGradientIsTheRoundedOne) {
  const Matrix dy = Matrix::Random(DType::kBF16, 25, 64, 8);
  const auto w = Matrix::Random(DType::kBF16, 64, 90, 9).Pack();
  const Matrix f32 = Input(dy.View(), *w);
  Matrix bf16(DType::kBF16, 25, 90);
  ASSERT_TRUE(
      GemmBackwardInput(dy.View(), *w, false, bf16.MutableView(), workspace_)
          .ok());
  for (int64_t r = 0; r < 25; ++r) {
    for (int64_t c = 0; c < 90; ++c) {
      ASSERT_EQ(bf16.At(r, c),
                ToFloat(ToBF16(static_cast<float>(f32.At(r, c)))));
    }
  }
}

TEST_P(GemmBackwardTest, WeightOfNoRows) {
  for (DType dtype : kComputeDtypes) {
    const Matrix x(dtype, 0, 40);
    const Matrix dy(dtype, 0, 50);
    Matrix dw = Matrix::Random(DType::kF32, 50, 40, 1);
    dw.Set(0, 0, -0.0f);
    const auto before = RowsOf(dw);
    ASSERT_TRUE(GemmBackwardWeight(x.View(), dy.View(), 2.0f, true,
                                   dw.MutableView(), workspace_)
                    .ok());
    EXPECT_EQ(RowsOf(dw), before);
    ASSERT_TRUE(GemmBackwardWeight(x.View(), dy.View(), 2.0f, false,
                                   dw.MutableView(), workspace_)
                    .ok());
    EXPECT_EQ(RowsOf(dw), RowsOf(Matrix(DType::kF32, 50, 40)));
  }
}

TEST_P(GemmBackwardTest, NanReachesItsRowsAndColumnsOnly) {
  for (DType dtype : kComputeDtypes) {
    Matrix x = Matrix::Random(dtype, 18, 70, 1);
    Matrix dy = Matrix::Random(dtype, 18, 40, 2);
    Matrix w = Matrix::Random(dtype, 40, 70, 3);
    x.Set(17, 69, NAN);
    dy.Set(3, 39, NAN);
    w.Set(39, 5, NAN);
    const Matrix dx = Input(dy.View(), *w.Pack());
    const Matrix dw = Weight(x.View(), dy.View());
    for (int64_t c = 0; c < 70; ++c) {
      for (int64_t r = 0; r < 18; ++r) {
        ASSERT_EQ(std::isnan(dx.At(r, c)), r == 3 || c == 5);
      }
      for (int64_t r = 0; r < 40; ++r) {
        ASSERT_EQ(std::isnan(dw.At(r, c)), r == 39 || c == 69);
      }
    }
  }
}

// What stands around the operands reaches no gradient, and nothing is written
// around the gradients.
TEST_P(GemmBackwardTest, SurroundingsNeverLeak) {
  constexpr int64_t kRows = 5, kN = 37, kK = 35;
  for (DType dtype : kComputeDtypes) {
    const auto surrounded = [&](const Matrix& middle) {
      Matrix all(dtype, 3 * middle.rows(), middle.cols());
      std::memset(all.MutableView().data(), 0xff, all.View().num_bytes());
      std::memcpy(all.MutableView().Rows(middle.rows(), middle.rows()).data(),
                  middle.View().data(), middle.View().num_bytes());
      return all;
    };
    const Matrix x = Matrix::Random(dtype, kRows, kK, 4);
    const Matrix dy = Matrix::Random(dtype, kRows, kN, 5);
    Matrix out(DType::kF32, 3 * kN, kK);
    std::memset(out.MutableView().data(), 0xff, out.View().num_bytes());
    ASSERT_TRUE(GemmBackwardWeight(surrounded(x).ViewOf(kRows, kRows),
                                   surrounded(dy).ViewOf(kRows, kRows), 1.0f,
                                   false, out.MutableView().Rows(kN, kN),
                                   workspace_)
                    .ok());
    const Matrix expected = Weight(x.View(), dy.View());
    for (int64_t r = 0; r < 3 * kN; ++r) {
      if (r >= kN && r < 2 * kN) {
        EXPECT_EQ(out.RowBytes(r), expected.RowBytes(r - kN));
      } else {
        for (int64_t c = 0; c < kK; ++c) ASSERT_TRUE(std::isnan(out.At(r, c)));
      }
    }
  }
}

}  // namespace
}  // namespace octet
