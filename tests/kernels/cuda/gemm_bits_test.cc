// The bits of an output row depend on nothing but the row of x and W: not on
// its neighbours, groups, the number of blocks, or where the operands stand.
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/cuda/gemm_harness.h"

namespace octet::test {
namespace {

using GemmBitsTest = GemmTestBase;

TEST_F(GemmBitsTest, RowAloneEqualsRowInAnyBatch) {
  constexpr int64_t kRows = 140, kK = 168;
  for (DType dtype : kComputeDtypes) {
    for (Form form : {Form::kPlain, Form::kSwiGlu}) {
      const Matrix x = Matrix::Random(dtype, kRows, kK, 1);
      const auto w = Pack(Matrix::Random(dtype, 76, kK, 2));
      const Matrix all = Run(x, {w.get()}, {0, kRows}, {.form = form});
      for (int64_t size : {1, 2, 16, 17, 64, 129}) {
        for (int64_t begin : {int64_t{0}, int64_t{7}, kRows - size}) {
          if (begin + size > kRows) continue;
          EXPECT_EQ(FirstMismatch(Run(RowsOf(x, begin, size), {w.get()},
                                      {0, size}, {.form = form}),
                                  RowsOf(all, begin, size)),
                    "")
              << Name(dtype) << " batch of " << size << " from row " << begin;
        }
      }
    }
  }
}

TEST_F(GemmBitsTest, GroupsEqualPlainAndSplitGroups) {
  for (DType dtype : kComputeDtypes) {
    for (Form form : {Form::kPlain, Form::kSwiGlu}) {
      const Matrix x = Matrix::Random(dtype, 140, 150, 1);
      const auto w = Pack(Matrix::Random(dtype, 132, 150, 2));
      const auto other = Pack(Matrix::Random(dtype, 132, 150, 3));
      const Matrix whole = Run(x, {w.get()}, {0, 140}, {.form = form});
      // The same matrix as three groups around an empty one.
      EXPECT_EQ(FirstMismatch(Run(x, {w.get(), other.get(), w.get(), w.get()},
                                  {0, 1, 1, 18, 140}, {.form = form}),
                              whole),
                "");
      const Matrix mixed =
          Run(x, {other.get(), w.get()}, {0, 23, 140}, {.form = form});
      EXPECT_EQ(FirstMismatch(RowsOf(mixed, 23, 117), RowsOf(whole, 23, 117)),
                "");
    }
  }
}

TEST_F(GemmBitsTest, NumberOfBlocksAndStagesChangesNothing) {
  for (DType dtype : kComputeDtypes) {
    for (Form form : {Form::kPlain, Form::kSwiGlu}) {
      const GemmGroupSet groups = MakeGroups(dtype, 260, 136, {130, 0, 3, 70});
      const Matrix x = Matrix::Random(dtype, groups.num_rows(), 136, 1);
      const Matrix one = Run(x, groups, {.form = form, .max_blocks = 1});
      for (int blocks : {0, 5}) {
        for (int stages : {3, 5}) {
          EXPECT_EQ(FirstMismatch(Run(x, groups,
                                      {.form = form,
                                       .max_blocks = blocks,
                                       .max_stages = stages}),
                                  one),
                    "")
              << blocks << " blocks, " << stages << " stages";
        }
      }
    }
  }
}

// x and out at addresses that rule out reads and writes of 16 bytes.
TEST_F(GemmBitsTest, AddressesChangeNothing) {
  for (DType dtype : kComputeDtypes) {
    for (DType out_dtype : kComputeDtypes) {
      for (Form form : {Form::kPlain, Form::kSwiGlu}) {
        const GemmGroupSet groups = MakeGroups(dtype, 144, 88, {20, 50});
        const Matrix x = Matrix::Random(dtype, 70, 88, 1);
        const Matrix aligned =
            Run(x, groups, {.form = form, .out_dtype = out_dtype});
        for (int64_t shift : {1, 3, 4}) {
          EXPECT_EQ(
              FirstMismatch(
                  Run(x, groups,
                      {.form = form, .out_dtype = out_dtype, .shift = shift}),
                  aligned),
              "");
        }
      }
    }
  }
}

}  // namespace
}  // namespace octet::test
