// Values of the matrix products against a naive double-precision reference, on
// every instruction set of this processor and on emulated AMX tiles.
#include "kernels/cpu/gemm.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
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

class GemmTest : public testing::TestWithParam<GemmPath> {
 protected:
  ThreadPool pool_{2};
  GemmWorkspace workspace_ = GetParam().Workspace(&pool_);
};

INSTANTIATE_TEST_SUITE_P(Paths, GemmTest,
                         testing::ValuesIn(test::AllGemmPaths()),
                         [](const auto& info) { return info.param.name; });

TEST(GemmPathsTest, AmxRunsOnHardware) {
  const std::vector<cpu::Isa> isas = cpu::SupportedIsas();
  if (std::find(isas.begin(), isas.end(), cpu::Isa::kAmx) == isas.end()) {
    GTEST_SKIP() << "this processor has no AMX: its product ran on emulated "
                    "tiles only";
  }
}

void ExpectWithin(double actual, const Bounded& expected, int64_t row,
                  int64_t col) {
  ASSERT_LE(std::fabs(actual - expected.value), expected.error)
      << "row " << row << " column " << col << ": " << actual << " instead of "
      << expected.value;
}

// Sizes around every block: 1, odd, and neighbours of 16, 32 and 64.
int64_t RandomSize(std::mt19937& random, int64_t max) {
  constexpr int64_t kEdges[] = {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65};
  const int64_t size = random() % 2 == 0
                           ? kEdges[random() % std::size(kEdges)]
                           : 1 + static_cast<int64_t>(random() % max);
  return std::min(size, max);
}

TEST_P(GemmTest, RandomShapesMatchTheReference) {
  std::mt19937 random(7);
  for (int trial = 0; trial < 36; ++trial) {
    const DType dtype = kComputeDtypes[trial % 2];
    const int64_t rows = RandomSize(random, 50);
    const int64_t n = RandomSize(random, 100);
    const int64_t k = RandomSize(random, trial % 6 == 0 ? 1400 : 200);
    SCOPED_TRACE(testing::Message()
                 << Name(dtype) << " T " << rows << " n " << n << " k " << k);
    const Matrix x = Matrix::Random(dtype, rows, k, trial);
    const Matrix w = Matrix::Random(dtype, n, k, 1000 + trial);
    const bool accumulate = trial % 3 == 0;
    Matrix out = Matrix::Random(DType::kF32, rows, n, 2000);
    const Matrix before = out;
    const auto packed = w.Pack();
    ASSERT_TRUE(
        Gemm(x.View(), *packed, accumulate, out.MutableView(), workspace_)
            .ok());
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < n; ++c) {
        Bounded expected = Dot(x, r, w, c);
        if (accumulate) {
          expected.value += before.At(r, c);
          expected.error += std::ldexp(std::fabs(expected.value), -23);
        }
        ASSERT_NO_FATAL_FAILURE(ExpectWithin(out.At(r, c), expected, r, c));
      }
    }
  }
}

struct Groups {
  std::vector<Matrix> w;
  std::vector<std::unique_ptr<CpuPackedMatrix>> packed;
  std::vector<const PackedMatrix*> pointers;
  std::vector<int64_t> row_offsets = {0};

  int Of(int64_t row) const {
    int group = 0;
    while (row >= row_offsets[group + 1]) ++group;
    return group;
  }
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

TEST_P(GemmTest, GroupsMatchTheReference) {
  for (DType dtype : kComputeDtypes) {
    for (const std::vector<int64_t>& sizes :
         {std::vector<int64_t>{0, 0}, std::vector<int64_t>{1},
          std::vector<int64_t>{3, 0, 1, 17, 33, 0, 2, 1}}) {
      const Groups groups = MakeGroups(dtype, 45, 77, sizes);
      const int64_t rows = groups.row_offsets.back();
      const Matrix x = Matrix::Random(dtype, rows, 77, 5);
      Matrix out(DType::kF32, rows, 45);
      ASSERT_TRUE(GroupedGemm(x.View(), groups.pointers, groups.row_offsets,
                              false, out.MutableView(), workspace_)
                      .ok());
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < 45; ++c) {
          const Bounded expected = Dot(x, r, groups.w[groups.Of(r)], c);
          ASSERT_NO_FATAL_FAILURE(ExpectWithin(out.At(r, c), expected, r, c));
        }
      }
    }
  }
}

TEST_P(GemmTest, SwiGluMatchesTheReference) {
  for (DType dtype : kComputeDtypes) {
    for (int64_t ffn : {1, 16, 31, 32, 33, 64, 96, 101}) {
      SCOPED_TRACE(testing::Message() << Name(dtype) << " F " << ffn);
      const int64_t k = 50;
      const Groups groups = MakeGroups(dtype, 2 * ffn, k, {2, 0, 35, 1});
      const int64_t rows = groups.row_offsets.back();
      const Matrix x = Matrix::Random(dtype, rows, k, 6);
      Matrix out(DType::kF32, rows, ffn);
      ASSERT_TRUE(GroupedGemmSwiGlu(x.View(), groups.pointers,
                                    groups.row_offsets, out.MutableView(),
                                    workspace_)
                      .ok());
      for (int64_t r = 0; r < rows; ++r) {
        const Matrix& w13 = groups.w[groups.Of(r)];
        for (int64_t c = 0; c < ffn; ++c) {
          const Bounded expected =
              SwiGlu(Dot(x, r, w13, c), Dot(x, r, w13, ffn + c));
          ASSERT_NO_FATAL_FAILURE(ExpectWithin(out.At(r, c), expected, r, c));
        }
      }
    }
  }
}

TEST_P(GemmTest, Bf16OutputIsTheRoundedF32Output) {
  for (DType dtype : kComputeDtypes) {
    const Groups groups = MakeGroups(dtype, 90, 64, {5, 20});
    const Matrix x = Matrix::Random(dtype, 25, 64, 8);
    const auto run = [&](bool swiglu, DType out_dtype) {
      Matrix out(out_dtype, 25, swiglu ? 45 : 90);
      const Tensor to = out.MutableView();
      EXPECT_TRUE((swiglu
                       ? GroupedGemmSwiGlu(x.View(), groups.pointers,
                                           groups.row_offsets, to, workspace_)
                       : GroupedGemm(x.View(), groups.pointers,
                                     groups.row_offsets, false, to, workspace_))
                      .ok());
      return out;
    };
    for (bool swiglu : {false, true}) {
      const Matrix f32 = run(swiglu, DType::kF32);
      const Matrix bf16 = run(swiglu, DType::kBF16);
      for (int64_t r = 0; r < 25; ++r) {
        for (int64_t c = 0; c < f32.cols(); ++c) {
          const float value = static_cast<float>(f32.At(r, c));
          ASSERT_EQ(bf16.At(r, c), ToFloat(ToBF16(value)));
        }
      }
    }
  }
}

TEST_P(GemmTest, NanAndInfinityReachTheirRowsAndColumnsOnly) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (DType dtype : kComputeDtypes) {
    Matrix x = Matrix::Random(dtype, 18, 70, 1);
    Matrix w = Matrix::Random(dtype, 40, 70, 2);
    x.Set(3, 69, NAN);
    x.Set(17, 0, kInf);
    w.Set(33, 5, NAN);
    w.Set(0, 0, 2.0f);  // inf * 2
    Matrix out(DType::kF32, 18, 40);
    ASSERT_TRUE(
        Gemm(x.View(), *w.Pack(), false, out.MutableView(), workspace_).ok());
    EXPECT_EQ(out.At(17, 0), kInf);
    for (int64_t r = 0; r < 18; ++r) {
      for (int64_t c = 0; c < 40; ++c) {
        const bool nan = r == 3 || c == 33;
        ASSERT_EQ(std::isnan(out.At(r, c)), nan) << r << ", " << c;
        ASSERT_EQ(std::isfinite(out.At(r, c)), !nan && r != 17);
      }
    }
  }
}

// What stands around x, around out and in the columns that pad the last panel
// of W reaches no output, and nothing is written around out.
TEST_P(GemmTest, PaddingNeverLeaks) {
  constexpr int64_t kRows = 5, kN = 37, kK = 35;
  for (DType dtype : kComputeDtypes) {
    const Matrix w = Matrix::Random(dtype, kN, kK, 3);
    const auto packed = w.Pack();
    const size_t size = SizeOf(dtype);
    const int64_t per_step = dtype == DType::kF32 ? 1 : 2;
    for (int64_t step = 0; step < packed->num_steps(); ++step) {
      std::memset(packed->mutable_panel(1) + step * cpu::kStepBytes +
                      (kN - 32) * per_step * size,
                  0xff, (64 - kN) * per_step * size);
    }
    Matrix x(dtype, 3 * kRows, kK);
    std::memset(x.MutableView().data(), 0xff, x.View().num_bytes());
    const Matrix middle = Matrix::Random(dtype, kRows, kK, 4);
    std::memcpy(x.MutableView().Rows(kRows, kRows).data(), middle.View().data(),
                middle.View().num_bytes());
    Matrix out(DType::kF32, 3 * kRows, kN);
    std::memset(out.MutableView().data(), 0xff, out.View().num_bytes());
    ASSERT_TRUE(Gemm(x.ViewOf(kRows, kRows), *packed, false,
                     out.MutableView().Rows(kRows, kRows), workspace_)
                    .ok());
    for (int64_t r = 0; r < 3 * kRows; ++r) {
      for (int64_t c = 0; c < kN; ++c) {
        if (r < kRows || r >= 2 * kRows) {
          ASSERT_TRUE(std::isnan(out.At(r, c))) << r << ", " << c;
        } else {
          ASSERT_NO_FATAL_FAILURE(
              ExpectWithin(out.At(r, c), Dot(middle, r - kRows, w, c), r, c));
        }
      }
    }
  }
}

TEST_P(GemmTest, EmptyOperandsAreFine) {
  for (DType dtype : kComputeDtypes) {
    const Matrix w = Matrix::Random(dtype, 4, 3, 1);
    Matrix none(DType::kF32, 0, 4);
    EXPECT_TRUE(Gemm(Matrix(dtype, 0, 3).View(), *w.Pack(), false,
                     none.MutableView(), workspace_)
                    .ok());
    // An empty sum is zero.
    Matrix out = Matrix::Random(DType::kF32, 2, 4, 1);
    EXPECT_TRUE(Gemm(Matrix(dtype, 2, 0).View(), *Matrix(dtype, 4, 0).Pack(),
                     false, out.MutableView(), workspace_)
                    .ok());
    for (int64_t c = 0; c < 4; ++c) EXPECT_EQ(out.At(1, c), 0.0);
  }
}

}  // namespace
}  // namespace octet
