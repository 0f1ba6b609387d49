#include "kernels/cpu/packed_matrix.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/aligned_memory.h"

namespace octet::cpu {
namespace {

using testing::Each;

std::vector<uint16_t> RandomBits(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint16_t> bits(count);
  for (uint16_t& b : bits) b = static_cast<uint16_t>(random());
  return bits;
}

class PackedMatrixShapeTest
    : public testing::TestWithParam<std::pair<int64_t, int64_t>> {};

TEST_P(PackedMatrixShapeTest, Bf16RoundTripKeepsEveryBit) {
  const auto [n, k] = GetParam();
  auto matrix = CpuPackedMatrix::Create(DType::kBF16, n, k);
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  const std::vector<uint16_t> rows = RandomBits(n * k, 1);  // NaNs included
  ASSERT_TRUE((*matrix)
                  ->PackRows(0, ConstTensor(rows.data(), DType::kBF16, {n, k}))
                  .ok());
  std::vector<uint16_t> back(n * k, 0x1234);
  ASSERT_TRUE(
      (*matrix)->UnpackRows(0, Tensor(back.data(), DType::kBF16, {n, k})).ok());
  EXPECT_EQ(back, rows);
}

TEST_P(PackedMatrixShapeTest, F32RoundTripInPieces) {
  const auto [n, k] = GetParam();
  auto matrix = CpuPackedMatrix::Create(DType::kF32, n, k);
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  std::vector<float> rows(n * k);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i) + 1;
  for (int64_t begin = 0; begin < n; begin += 5) {
    const int64_t count = std::min<int64_t>(5, n - begin);
    ASSERT_TRUE((*matrix)
                    ->PackRows(begin, ConstTensor(rows.data() + begin * k,
                                                  DType::kF32, {count, k}))
                    .ok());
  }
  std::vector<float> back(n * k, -1.0f);
  for (int64_t begin = 0; begin < n; begin += 7) {
    const int64_t count = std::min<int64_t>(7, n - begin);
    ASSERT_TRUE((*matrix)
                    ->UnpackRows(begin, Tensor(back.data() + begin * k,
                                               DType::kF32, {count, k}))
                    .ok());
  }
  EXPECT_EQ(back, rows);
}

INSTANTIATE_TEST_SUITE_P(Shapes, PackedMatrixShapeTest,
                         testing::Values(std::pair{1, 1}, std::pair{0, 5},
                                         std::pair{3, 0}, std::pair{31, 33},
                                         std::pair{32, 32}, std::pair{33, 31},
                                         std::pair{100, 257},
                                         std::pair{64, 1000}));

TEST(PackedMatrixTest, ConvertsF32AndF16Sources) {
  auto bf16 = *CpuPackedMatrix::Create(DType::kBF16, 2, 3);
  // 1 + 2^-8 is halfway between two bf16: to even. 65504 is the largest half.
  const std::vector<float> f32 = {1.00390625f, 1.01171875f, -2.5f};
  const std::vector<uint16_t> f16 = {0x3c00, 0x7bff, 0x8001};
  ASSERT_TRUE(
      bf16->PackRows(0, ConstTensor(f32.data(), DType::kF32, {1, 3})).ok());
  ASSERT_TRUE(
      bf16->PackRows(1, ConstTensor(f16.data(), DType::kF16, {1, 3})).ok());
  std::vector<BF16> back(6);
  ASSERT_TRUE(
      bf16->UnpackRows(0, Tensor(back.data(), DType::kBF16, {2, 3})).ok());
  EXPECT_EQ(ToFloat(back[0]), 1.0f);
  EXPECT_EQ(ToFloat(back[1]), 1.015625f);
  EXPECT_EQ(ToFloat(back[2]), -2.5f);
  EXPECT_EQ(ToFloat(back[3]), 1.0f);
  EXPECT_EQ(ToFloat(back[4]), 65536.0f);
  EXPECT_EQ(ToFloat(back[5]), -std::ldexp(1.0f, -24));

  auto f32_matrix = *CpuPackedMatrix::Create(DType::kF32, 1, 3);
  ASSERT_TRUE(
      f32_matrix->PackRows(0, ConstTensor(f16.data(), DType::kF16, {1, 3}))
          .ok());
  std::vector<float> exact(3);
  ASSERT_TRUE(
      f32_matrix->UnpackRows(0, Tensor(exact.data(), DType::kF32, {1, 3}))
          .ok());
  EXPECT_EQ(exact,
            (std::vector<float>{1.0f, 65504.0f, -std::ldexp(1.0f, -24)}));
}

TEST(PackedMatrixTest, RowsNeverWrittenAreZeroAndPaddingStaysZero) {
  auto matrix = *CpuPackedMatrix::Create(DType::kBF16, 40, 5);
  const std::vector<float> row(5, 3.0f);
  ASSERT_TRUE(
      matrix->PackRows(39, ConstTensor(row.data(), DType::kF32, {1, 5})).ok());
  std::vector<uint16_t> back(39 * 5, 1);
  ASSERT_TRUE(
      matrix->UnpackRows(0, Tensor(back.data(), DType::kBF16, {39, 5})).ok());
  EXPECT_THAT(back, Each(0));
  size_t nonzero = 0;
  for (size_t i = 0; i < matrix->size_bytes() / 2; ++i) {
    nonzero += reinterpret_cast<const uint16_t*>(matrix->panel(0))[i] != 0;
  }
  EXPECT_EQ(nonzero, 5u);
}

TEST(PackedMatrixTest, SizeCountsPadding) {
  // 2 panels of 16 steps of 128 bytes.
  EXPECT_EQ((*CpuPackedMatrix::Create(DType::kBF16, 33, 5))->size_bytes(),
            2u * 16 * 128);
  EXPECT_EQ((*CpuPackedMatrix::Create(DType::kF32, 33, 5))->size_bytes(),
            2u * 5 * 128);
}

TEST(PackedMatrixTest, WrongArgumentsAreNamed) {
  EXPECT_EQ(CpuPackedMatrix::Create(DType::kF16, 1, 1).status().message(),
            "packed matrix has dtype f16, expected f32 or bf16");
  EXPECT_EQ(CpuPackedMatrix::Create(DType::kF32, -1, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  auto matrix = *CpuPackedMatrix::Create(DType::kF32, 4, 3);
  std::vector<float> rows(12, 1.0f);
  EXPECT_EQ(matrix->PackRows(2, ConstTensor(rows.data(), DType::kF32, {4, 3}))
                .message(),
            "rows f32[4, 3] at row 2 do not fit a packed matrix [4, 3]");
  EXPECT_FALSE(
      matrix->PackRows(0, ConstTensor(rows.data(), DType::kF32, {4, 2})).ok());
  EXPECT_FALSE(
      matrix->PackRows(-1, ConstTensor(rows.data(), DType::kF32, {4, 3})).ok());
  EXPECT_EQ(matrix->PackRows(0, ConstTensor(rows.data(), DType::kI32, {4, 3}))
                .message(),
            "rows to pack have dtype i32, expected f32, bf16 or f16");
  EXPECT_EQ(matrix->UnpackRows(0, Tensor(rows.data(), DType::kBF16, {4, 3}))
                .message(),
            "rows to unpack into have dtype bf16, expected f32");
}

TEST(AlignedMemoryTest, IsAlignedAndZeroAtEverySize) {
  for (size_t size : {size_t{0}, size_t{1}, size_t{100}, size_t{5} << 20}) {
    auto memory = AlignedMemory::Allocate(size);
    ASSERT_TRUE(memory.ok()) << memory.status();
    EXPECT_EQ(memory->size_bytes(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory->data()) % 64, 0u);
    auto* bytes = static_cast<unsigned char*>(memory->data());
    for (size_t i = 0; i < size; i += 97) ASSERT_EQ(bytes[i], 0);
    if (size > 0) bytes[size - 1] = 1;
    AlignedMemory moved = std::move(*memory);
    EXPECT_EQ(moved.size_bytes(), size);
  }
}

TEST(AlignedMemoryTest, TooLargeNamesTheSize) {
  const auto memory = AlignedMemory::Allocate(size_t{1} << 62);
  EXPECT_EQ(memory.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(memory.status().message(),
            "no memory for a buffer of 4611686018427387904 bytes");
}

}  // namespace
}  // namespace octet::cpu
