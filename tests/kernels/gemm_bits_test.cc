// The bits of an output row depend on nothing but the row of x and W: not on
// its neighbours, the number of threads, blocking or grouping.
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/gemm.h"
#include "tests/kernels/gemm_test_util.h"

namespace octet {
namespace {

using cpu::GemmWorkspace;
using cpu::ThreadPool;
using test::GemmPath;
using test::Matrix;

constexpr DType kComputeDtypes[] = {DType::kF32, DType::kBF16};

class GemmBitsTest : public testing::TestWithParam<GemmPath> {
 protected:
  Matrix Product(ConstTensor x, const PackedMatrix& w, int num_threads = 1) {
    ThreadPool pool(num_threads);
    GemmWorkspace workspace = GetParam().Workspace(&pool);
    Matrix out(DType::kF32, x.dim(0), w.n());
    EXPECT_TRUE(Gemm(x, w, false, out.MutableView(), workspace).ok());
    return out;
  }
  Matrix Grouped(ConstTensor x, const std::vector<const PackedMatrix*>& w,
                 const std::vector<int64_t>& row_offsets, bool swiglu,
                 int num_threads = 1) {
    ThreadPool pool(num_threads);
    GemmWorkspace workspace = GetParam().Workspace(&pool);
    Matrix out(x.dtype(), x.dim(0), swiglu ? w[0]->n() / 2 : w[0]->n());
    const Tensor to = out.MutableView();
    EXPECT_TRUE((swiglu ? GroupedGemmSwiGlu(x, w, row_offsets, to, workspace)
                        : GroupedGemm(x, w, row_offsets, false, to, workspace))
                    .ok());
    return out;
  }
};

INSTANTIATE_TEST_SUITE_P(Paths, GemmBitsTest,
                         testing::ValuesIn(test::AllGemmPaths()),
                         [](const auto& info) { return info.param.name; });

std::vector<std::string> RowsOf(const Matrix& matrix) {
  std::vector<std::string> rows;
  for (int64_t r = 0; r < matrix.rows(); ++r)
    rows.push_back(matrix.RowBytes(r));
  return rows;
}

// k beyond several blocks of k, so that sums are spilled and taken up again in
// large batches and not in small ones.
TEST_P(GemmBitsTest, RowAloneEqualsRowInAnyBatch) {
  for (DType dtype : kComputeDtypes) {
    const int64_t k = 1101;
    const Matrix x = Matrix::Random(dtype, 70, k, 1);
    const auto w = Matrix::Random(dtype, 37, k, 2).Pack();
    std::vector<std::string> alone;
    for (int64_t r = 0; r < 70; ++r) {
      alone.push_back(Product(x.ViewOf(r, 1), *w).RowBytes(0));
    }
    for (int64_t size : {2, 3, 5, 6, 7, 11, 12, 13, 16, 17, 31, 33, 64, 70}) {
      for (int64_t begin : {int64_t{0}, (70 - size) / 2, 70 - size}) {
        const Matrix out = Product(x.ViewOf(begin, size), *w);
        for (int64_t r = 0; r < size; ++r) {
          ASSERT_EQ(out.RowBytes(r), alone[begin + r])
              << Name(dtype) << " batch of " << size << " from row " << begin
              << ", row " << r;
        }
      }
    }
  }
}

// More rows than one chunk takes.
TEST_P(GemmBitsTest, RowInManyChunksEqualsRowAlone) {
  for (DType dtype : kComputeDtypes) {
    const Matrix x = Matrix::Random(dtype, 1030, 600, 1);
    const auto w = Matrix::Random(dtype, 70, 600, 2).Pack();
    const Matrix out = Product(x.View(), *w, 2);
    for (int64_t r = 0; r < 1030; r += 103) {
      ASSERT_EQ(out.RowBytes(r), Product(x.ViewOf(r, 1), *w).RowBytes(0));
    }
  }
}

TEST_P(GemmBitsTest, NumberOfThreadsChangesNothing) {
  for (DType dtype : kComputeDtypes) {
    const Matrix x = Matrix::Random(dtype, 29, 300, 1);
    const auto w0 = Matrix::Random(dtype, 400, 300, 2).Pack();
    const auto w1 = Matrix::Random(dtype, 400, 300, 3).Pack();
    const auto one = RowsOf(Product(x.View(), *w0, 1));
    const auto swiglu =
        RowsOf(Grouped(x.View(), {w0.get(), w1.get()}, {0, 2, 29}, true, 1));
    for (int threads : {2, 3}) {
      EXPECT_EQ(RowsOf(Product(x.View(), *w0, threads)), one);
      EXPECT_EQ(RowsOf(Grouped(x.View(), {w0.get(), w1.get()}, {0, 2, 29}, true,
                               threads)),
                swiglu);
    }
  }
}

// A so large that chunks take each other's places while threads multiply.
TEST_P(GemmBitsTest, ChunksThatTakeTurnsEqualRowsAlone) {
  for (DType dtype : kComputeDtypes) {
    const Matrix x = Matrix::Random(dtype, 1280, 2000, 1);
    const auto w = Matrix::Random(dtype, 33, 2000, 2).Pack();
    std::vector<int64_t> row_offsets = {0};
    while (row_offsets.back() < 1280) {
      row_offsets.push_back(row_offsets.back() + 160);
    }
    const std::vector<const PackedMatrix*> same(row_offsets.size() - 1,
                                                w.get());
    const auto one = RowsOf(Grouped(x.View(), same, row_offsets, false, 1));
    for (int64_t r = 0; r < 1280; r += 97) {
      ASSERT_EQ(one[r],
                RowsOf(Grouped(x.ViewOf(r, 1), {w.get()}, {0, 1}, false))[0]);
    }
    for (int threads : {2, 7}) {
      EXPECT_EQ(RowsOf(Grouped(x.View(), same, row_offsets, false, threads)),
                one);
    }
  }
}

TEST_P(GemmBitsTest, GroupsEqualPlainAndSplitGroups) {
  for (DType dtype : kComputeDtypes) {
    const Matrix x = Matrix::Random(dtype, 40, 150, 1);
    const auto w = Matrix::Random(dtype, 66, 150, 2).Pack();
    const auto other = Matrix::Random(dtype, 66, 150, 3).Pack();
    for (bool swiglu : {false, true}) {
      const auto whole = RowsOf(Grouped(x.View(), {w.get()}, {0, 40}, swiglu));
      // The same matrix as three groups around an empty one.
      EXPECT_EQ(
          RowsOf(Grouped(x.View(), {w.get(), other.get(), w.get(), w.get()},
                         {0, 1, 1, 18, 40}, swiglu)),
          whole);
      const auto mixed = RowsOf(
          Grouped(x.View(), {w.get(), other.get()}, {0, 23, 40}, swiglu));
      EXPECT_TRUE(std::equal(whole.begin(), whole.begin() + 23, mixed.begin()));
    }
    if (dtype == DType::kF32) {
      EXPECT_EQ(RowsOf(Product(x.View(), *w)),
                RowsOf(Grouped(x.View(), {w.get()}, {0, 40}, false)));
    }
  }
}

}  // namespace
}  // namespace octet
