#include "kernels/cuda/packed_matrix.h"

#include <cmath>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/kernels/cuda/gpu.h"
#include "tests/kernels/shape_count.h"
#include "tests/reference/host_tensor.h"

namespace octet::cuda {
namespace {

using testing::Each;
using testing::HasSubstr;

class PackedMatrixTest : public testing::Test {
 protected:
  std::unique_ptr<CudaPackedMatrix> New(DType dtype, int64_t n, int64_t k) {
    auto matrix = CudaPackedMatrix::Create(dtype, n, k, gpu_.staging());
    test::Must(matrix.status());
    return *std::move(matrix);
  }

  test::Gpu gpu_;  // staging buffers of 64 KiB
};

TEST_F(PackedMatrixTest, Bf16RoundTripKeepsEveryBit) {
  for (const auto& [n, k] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1},
                                                {0, 5},
                                                {3, 0},
                                                {31, 33},
                                                {128, 64},
                                                {129, 65},
                                                {300, 257}}) {
    const auto matrix = New(DType::kBF16, n, k);
    test::Random random(n);
    std::vector<uint16_t> rows(n * k);  // NaNs included
    for (uint16_t& bits : rows) {
      bits = static_cast<uint16_t>(random.Integer(0, 65535));
    }
    test::Must(matrix->PackRows(
        0, ConstTensor(rows.data(), DType::kBF16, {n, k}), gpu_.staging()));
    std::vector<uint16_t> back(n * k, 0x1234);
    test::Must(matrix->UnpackRows(0, Tensor(back.data(), DType::kBF16, {n, k}),
                                  gpu_.staging()));
    EXPECT_EQ(back, rows) << n << " " << k;
  }
}

// Rows in pieces, from every source that the matrix's dtype can hold exactly.
TEST_F(PackedMatrixTest, RandomShapesRoundTrip) {
  test::ShapeCount shapes;
  for (uint64_t seed = 0; seed < 36; ++seed) {
    test::Random random(seed);
    const DType dtype = seed % 2 ? DType::kF32 : DType::kBF16;
    const int64_t n = seed < 4 ? static_cast<int64_t>(seed) / 2
                               : random.Integer(1, seed % 8 == 5 ? 300 : 40);
    const int64_t k = random.Integer(1, seed % 8 == 6 ? 400 : 80);
    shapes.Add(n, {k, static_cast<int64_t>(seed) % 2});
    SCOPED_TRACE(testing::Message() << Name(dtype) << " n " << n << " k " << k);
    const auto matrix = New(dtype, n, k);
    const std::vector<BF16> rows = test::ToBF16(random.Floats(n * k));
    const std::vector<float> wide = test::ToFloats(rows);
    for (int64_t begin = 0; begin < n;) {
      const int64_t count = random.Integer(1, n - begin);
      const bool from_f32 = random.Integer(0, 1);
      test::Must(matrix->PackRows(
          begin,
          from_f32 ? ConstTensor(&wide[begin * k], DType::kF32, {count, k})
                   : ConstTensor(&rows[begin * k], DType::kBF16, {count, k}),
          gpu_.staging()));
      begin += count;
    }
    std::vector<BF16> bf16(n * k);
    std::vector<float> f32(n * k);
    for (int64_t begin = 0; begin < n;) {
      const int64_t count = random.Integer(1, n - begin);
      void* const to = dtype == DType::kF32
                           ? static_cast<void*>(&f32[begin * k])
                           : static_cast<void*>(&bf16[begin * k]);
      test::Must(matrix->UnpackRows(begin, Tensor(to, dtype, {count, k}),
                                    gpu_.staging()));
      begin += count;
    }
    EXPECT_EQ(dtype == DType::kF32 ? f32 : test::ToFloats(bf16), wide);
  }
  shapes.Check();
}

// More rows than both staging buffers hold, in pieces that start anywhere.
TEST_F(PackedMatrixTest, F32RoundTripInPieces) {
  const int64_t n = 700, k = 70;
  const auto matrix = New(DType::kF32, n, k);
  std::vector<float> rows(n * k);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i) + 1;
  for (int64_t begin = 0; begin < n; begin += 650) {
    const int64_t count = std::min<int64_t>(650, n - begin);
    test::Must(matrix->PackRows(
        begin, ConstTensor(rows.data() + begin * k, DType::kF32, {count, k}),
        gpu_.staging()));
  }
  std::vector<float> back(n * k, -1.0f);
  for (int64_t begin = 0; begin < n; begin += 400) {
    const int64_t count = std::min<int64_t>(400, n - begin);
    test::Must(matrix->UnpackRows(
        begin, Tensor(back.data() + begin * k, DType::kF32, {count, k}),
        gpu_.staging()));
  }
  EXPECT_EQ(back, rows);
}

TEST_F(PackedMatrixTest, ConvertsF32AndF16Sources) {
  const auto bf16 = New(DType::kBF16, 2, 3);
  // 1 + 2^-8 is halfway between two bf16: to even. 65504 is the largest half.
  const std::vector<float> f32 = {1.00390625f, 1.01171875f, -2.5f};
  const std::vector<uint16_t> f16 = {0x3c00, 0x7bff, 0x8001};
  test::Must(bf16->PackRows(0, ConstTensor(f32.data(), DType::kF32, {1, 3}),
                            gpu_.staging()));
  test::Must(bf16->PackRows(1, ConstTensor(f16.data(), DType::kF16, {1, 3}),
                            gpu_.staging()));
  std::vector<BF16> back(6);
  test::Must(bf16->UnpackRows(0, Tensor(back.data(), DType::kBF16, {2, 3}),
                              gpu_.staging()));
  EXPECT_EQ(test::ToFloats(back),
            (std::vector<float>{1.0f, 1.015625f, -2.5f, 1.0f, 65536.0f,
                                -std::ldexp(1.0f, -24)}));
}

TEST_F(PackedMatrixTest, RowsNeverWrittenAndPaddingAreZero) {
  const auto matrix = New(DType::kBF16, 40, 5);
  EXPECT_EQ(matrix->ld(), 64);
  EXPECT_EQ(matrix->size_bytes(), 40u * 128);
  const std::vector<float> row(5, 3.0f);
  test::Must(matrix->PackRows(39, ConstTensor(row.data(), DType::kF32, {1, 5}),
                              gpu_.staging()));
  std::vector<uint16_t> all = gpu_.Download<uint16_t>(
      ConstTensor(matrix->data(), DType::kBF16, {40, 64}));
  for (int i = 0; i < 5; ++i) EXPECT_EQ(all[39 * 64 + i], 0x4040);
  all.erase(all.begin() + 39 * 64, all.begin() + 39 * 64 + 5);
  EXPECT_THAT(all, Each(0));
}

TEST_F(PackedMatrixTest, IsZeroForEveryStreamAtOnce) {
  const auto matrix = New(DType::kF32, 3, 32);
  EXPECT_THAT(
      gpu_.Download<float>(ConstTensor(matrix->data(), DType::kF32, {3, 32})),
      Each(0.0f));
}

TEST_F(PackedMatrixTest, WrongArgumentsAreNamed) {
  EXPECT_EQ(CudaPackedMatrix::Create(DType::kF16, 1, 1, gpu_.staging())
                .status()
                .message(),
            "packed matrix has dtype f16, expected f32 or bf16");
  const auto matrix = New(DType::kF32, 4, 3);
  std::vector<float> rows(12, 1.0f);
  EXPECT_EQ(matrix
                ->PackRows(2, ConstTensor(rows.data(), DType::kF32, {4, 3}),
                           gpu_.staging())
                .message(),
            "rows f32[4, 3] at row 2 do not fit a packed matrix [4, 3]");
  EXPECT_EQ(matrix
                ->PackRows(0, ConstTensor(rows.data(), DType::kI32, {4, 3}),
                           gpu_.staging())
                .message(),
            "rows to pack have dtype i32, expected f32, bf16 or f16");
  EXPECT_EQ(matrix
                ->UnpackRows(0, Tensor(rows.data(), DType::kBF16, {4, 3}),
                             gpu_.staging())
                .message(),
            "rows to unpack into have dtype bf16, expected f32");
  const auto wide = New(DType::kF32, 1, 20000);
  rows.resize(20000);
  const ConstTensor row(rows.data(), DType::kF32, {1, 20000});
  EXPECT_EQ(wide->PackRows(0, row, gpu_.staging()).message(),
            "a row of a packed matrix has 80000 bytes, expected at most the "
            "staging buffer's 65536");
}

TEST_F(PackedMatrixTest, TooLargeNamesTheSize) {
  const auto matrix =
      CudaPackedMatrix::Create(DType::kF32, 1 << 30, 1 << 30, gpu_.staging());
  EXPECT_EQ(matrix.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(matrix.status().message()),
              HasSubstr("cudaMalloc of 4611686018427387904 bytes"));
}

}  // namespace
}  // namespace octet::cuda
