// Values of the CUDA backend's matrix products against a naive double-precision
// reference.
#include "kernels/cuda/gemm.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/cuda/gemm_harness.h"
#include "tests/kernels/shape_count.h"

namespace octet::test {
namespace {

class GemmTest : public GemmTestBase {
 protected:
  // Every output of a plain product, or with `before` of an accumulation.
  static void ExpectGroups(const Matrix& out, const Matrix& x,
                           const GemmGroupSet& groups, const Matrix* before) {
    for (int64_t r = 0; r < out.rows(); ++r) {
      const Matrix& w = groups.WeightsOf(r);
      for (int64_t c = 0; c < out.cols(); ++c) {
        ExpectWithin(out, r, c, ProductAt(x, w, r, c, before));
        if (HasFatalFailure()) return;
      }
    }
  }
  static void ExpectSwiGlu(const Matrix& out, const Matrix& x,
                           const GemmGroupSet& groups) {
    for (int64_t r = 0; r < out.rows(); ++r) {
      const Matrix& w13 = groups.WeightsOf(r);
      for (int64_t c = 0; c < out.cols(); ++c) {
        ExpectWithin(out, r, c,
                     SwiGlu(Dot(x, r, w13, c), Dot(x, r, w13, out.cols() + c)));
        if (HasFatalFailure()) return;
      }
    }
  }
};

// Sizes around the tiles' and strips': 1, odd, and neighbours of 16 .. 128.
int64_t RandomSize(std::mt19937& random, int64_t max) {
  constexpr int64_t kEdges[] = {1,  2,  15, 16, 17,  31,  32,
                                33, 63, 64, 65, 127, 128, 129};
  const int64_t size = random() % 2 == 0
                           ? kEdges[random() % std::size(kEdges)]
                           : 1 + static_cast<int64_t>(random() % max);
  return std::min(size, max);
}

TEST_F(GemmTest, RandomShapesMatchTheReference) {
  std::mt19937 random(7);
  ShapeCount shapes;
  for (int trial = 0; trial < 40; ++trial) {
    const DType dtype = kComputeDtypes[trial % 2];
    const int64_t rows =
        trial < 2 ? trial : RandomSize(random, trial % 9 == 0 ? 300 : 40);
    const int64_t n = RandomSize(random, trial % 4 == 0 ? 300 : 100);
    // Every other k makes rows of x that are multiples of 16 bytes.
    const int64_t k =
        trial % 4 < 2 ? 8 * RandomSize(random, 40) : RandomSize(random, 200);
    Call call;
    call.max_blocks = 1 + static_cast<int>(random() % 4);
    call.max_stages = random() % 2 == 0 ? 3 : 5;
    const bool accumulate = trial % 3 == 0;
    if (accumulate) {
      call.form = Form::kAccumulate;
    } else if (trial % 3 == 1) {
      call.out_dtype = DType::kBF16;
    }
    shapes.Add(rows, {n, k, trial % 2, trial % 3});
    SCOPED_TRACE(testing::Message()
                 << Name(dtype) << " T " << rows << " n " << n << " k " << k);
    const Matrix x = Matrix::Random(dtype, rows, k, trial);
    const Matrix before = Matrix::Random(DType::kF32, rows, n, 2000);
    call.before = &before;
    const GemmGroupSet groups = MakeGroups(dtype, n, k, {rows});
    ExpectGroups(Run(x, groups, call), x, groups,
                 accumulate ? &before : nullptr);
    ASSERT_FALSE(HasFailure());
  }
  shapes.Check();
}

// E of every kind, powers of two and others; groups without rows among them.
std::vector<int64_t> RandomGroups(std::mt19937& random, int trial) {
  if (trial < 2) return {0, trial, 0};
  std::vector<int64_t> sizes(1 + random() % 11);
  for (int64_t& size : sizes) {
    size = random() % 3 == 0 ? 0 : RandomSize(random, trial % 9 == 2 ? 140 : 9);
  }
  return sizes;
}

TEST_F(GemmTest, GroupsOfRandomShapesMatchTheReference) {
  std::mt19937 random(8);
  ShapeCount shapes;
  for (int trial = 0; trial < 36; ++trial) {
    const DType dtype = kComputeDtypes[trial % 2];
    const std::vector<int64_t> sizes = RandomGroups(random, trial);
    const int64_t n = RandomSize(random, trial % 9 == 3 ? 150 : 40);
    const int64_t k =
        trial % 4 < 2 ? 8 * RandomSize(random, 12) : RandomSize(random, 100);
    SCOPED_TRACE(testing::Message() << Name(dtype) << " E " << sizes.size()
                                    << " n " << n << " k " << k);
    const GemmGroupSet groups = MakeGroups(dtype, n, k, sizes);
    shapes.Add(groups.num_rows(), {std::ssize(sizes), n, k, trial % 2});
    const Matrix x = Matrix::Random(dtype, groups.num_rows(), k, 5);
    const DType out_dtype = trial % 3 == 0 ? DType::kBF16 : DType::kF32;
    ExpectGroups(Run(x, groups, {.out_dtype = out_dtype}), x, groups, nullptr);
    ASSERT_FALSE(HasFailure());
  }
  shapes.Check();
}

// More groups than one launch takes.
TEST_F(GemmTest, AnyNumberOfGroups) {
  std::vector<int64_t> sizes;
  for (int g = 0; g < 300; ++g) sizes.push_back(g % 7 == 3 ? 0 : g % 3 + 1);
  const GemmGroupSet groups = MakeGroups(DType::kBF16, 9, 16, sizes);
  const Matrix x = Matrix::Random(DType::kBF16, groups.num_rows(), 16, 5);
  ExpectGroups(Run(x, groups, {.max_blocks = 50}), x, groups, nullptr);
}

TEST_F(GemmTest, SwiGluOfRandomShapesMatchesTheReference) {
  std::mt19937 random(9);
  ShapeCount shapes;
  for (int trial = 0; trial < 36; ++trial) {
    const DType dtype = kComputeDtypes[trial % 2];
    const std::vector<int64_t> sizes = RandomGroups(random, trial);
    const int64_t ffn = RandomSize(random, trial % 9 == 3 ? 130 : 35);
    const int64_t k =
        trial % 4 < 2 ? 8 * RandomSize(random, 12) : RandomSize(random, 100);
    SCOPED_TRACE(testing::Message() << Name(dtype) << " E " << sizes.size()
                                    << " F " << ffn << " k " << k);
    const GemmGroupSet groups = MakeGroups(dtype, 2 * ffn, k, sizes);
    shapes.Add(groups.num_rows(), {std::ssize(sizes), ffn, k, trial % 2});
    const Matrix x = Matrix::Random(dtype, groups.num_rows(), k, 6);
    const DType out_dtype = trial % 3 == 0 ? DType::kF32 : dtype;
    ExpectSwiGlu(
        Run(x, groups, {.form = Form::kSwiGlu, .out_dtype = out_dtype}), x,
        groups);
    ASSERT_FALSE(HasFailure());
  }
  shapes.Check();
}

TEST_F(GemmTest, SwiGluOfLargeGates) {
  const GemmGroupSet groups = MakeGroups(DType::kF32, 2, 1, {2});
  const auto w = Pack([] {
    Matrix w(DType::kF32, 2, 1);
    w.Set(0, 0, 1.0f);
    w.Set(1, 0, 1.0f);
    return w;
  }());
  Matrix x(DType::kF32, 2, 1);
  x.Set(0, 0, 200.0f);
  x.Set(1, 0, -200.0f);
  const Matrix out = Run(x, {w.get()}, {0, 2}, {.form = Form::kSwiGlu});
  EXPECT_EQ(out.At(0, 0), 40000.0);
  EXPECT_EQ(out.At(1, 0), 0.0);
}

TEST_F(GemmTest, Bf16OutputIsTheRoundedF32Output) {
  for (DType dtype : kComputeDtypes) {
    for (Form form : {Form::kPlain, Form::kSwiGlu}) {
      const GemmGroupSet groups = MakeGroups(dtype, 136, 64, {5, 20});
      const Matrix x = Matrix::Random(dtype, 25, 64, 8);
      const Matrix f32 = Run(x, groups, {.form = form});
      const Matrix bf16 =
          Run(x, groups, {.form = form, .out_dtype = DType::kBF16});
      for (int64_t r = 0; r < f32.rows(); ++r) {
        for (int64_t c = 0; c < f32.cols(); ++c) {
          ASSERT_EQ(bf16.At(r, c),
                    ToFloat(octet::ToBF16(static_cast<float>(f32.At(r, c)))));
        }
      }
    }
  }
}

// NaN and infinity stay in the row of x and the column of W they are in.
TEST_F(GemmTest, NanAndInfinityStayInTheirRowsAndColumns) {
  const float inf = std::numeric_limits<float>::infinity();
  for (DType dtype : kComputeDtypes) {
    Matrix x = Matrix::Random(dtype, 18, 50, 1);
    Matrix w = Matrix::Random(dtype, 140, 50, 2);
    x.Set(3, 49, std::nanf(""));
    w.Set(133, 0, std::nanf(""));
    x.Set(17, 2, inf);
    const auto packed = Pack(w);
    const Matrix out = Run(x, {packed.get()}, {0, 18}, {});
    for (int64_t r = 0; r < 18; ++r) {
      for (int64_t c = 0; c < 140; ++c) {
        const bool nan = r == 3 || c == 133;
        ASSERT_EQ(std::isnan(out.At(r, c)), nan) << r << ", " << c;
        ASSERT_EQ(std::isfinite(out.At(r, c)), !nan && r != 17);
      }
    }
  }
}

// What stands after the rows of a group and after W's rows reaches no output:
// the next group's rows and weights are NaN.
TEST_F(GemmTest, NeighboursNeverLeak) {
  for (DType dtype : kComputeDtypes) {
    for (Form form : {Form::kPlain, Form::kSwiGlu}) {
      GemmGroupSet groups = MakeGroups(dtype, 74, 40, {5, 3});
      Matrix poison(dtype, 74, 40);
      std::memset(poison.MutableView().data(), 0xff, poison.View().num_bytes());
      Must(groups.packed[1]->PackRows(0, poison.View(), gpu_.staging()));
      Matrix x = Matrix::Random(dtype, 8, 40, 4);
      std::memset(x.MutableView().Rows(5, 3).data(), 0xff,
                  x.ViewOf(5, 3).num_bytes());
      const Matrix out = Run(x, groups, {.form = form});
      const Matrix first = RowsOf(out, 0, 5);
      if (form == Form::kPlain) {
        ExpectGroups(first, x, groups, nullptr);
      } else {
        ExpectSwiGlu(first, x, groups);
      }
      EXPECT_TRUE(std::isnan(out.At(5, 0)));
    }
  }
}

TEST_F(GemmTest, TooManyRowsAreNamed) {
  const auto w = Pack(Matrix::Random(DType::kBF16, 1, 1, 1));
  const int64_t rows = int64_t{1} << 31;
  EXPECT_EQ(cuda::GemmLauncher::Create()
                ->Gemm(ConstTensor(nullptr, DType::kBF16, {rows, 1}), *w, false,
                       Tensor(nullptr, DType::kF32, {rows, 1}), gpu_.stream())
                .message(),
            "matrix product: x has 2147483648 rows, expected at most "
            "2147483647");
}

TEST_F(GemmTest, EmptyOperandsAreFine) {
  for (DType dtype : kComputeDtypes) {
    GemmGroupSet groups = MakeGroups(dtype, 4, 3, {0});
    EXPECT_EQ(Run(Matrix(dtype, 0, 3), groups, {}).rows(), 0);
    groups = MakeGroups(dtype, 0, 3, {2});
    EXPECT_EQ(Run(Matrix(dtype, 2, 3), groups, {}).cols(), 0);
    // An empty sum is zero.
    groups = MakeGroups(dtype, 4, 0, {2});
    const Matrix x(dtype, 2, 0);
    for (Form form : {Form::kPlain, Form::kSwiGlu}) {
      const Matrix out = Run(x, groups, {.form = form});
      for (int64_t c = 0; c < out.cols(); ++c) EXPECT_EQ(out.At(1, c), 0.0);
    }
    const Matrix before = Matrix::Random(DType::kF32, 2, 4, 1);
    EXPECT_EQ(FirstMismatch(Run(x, groups,
                                {.form = Form::kAccumulate, .before = &before}),
                            before),
              "");
  }
}

}  // namespace
}  // namespace octet::test
