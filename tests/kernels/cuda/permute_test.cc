#include "kernels/cuda/permute.h"

#include <cstring>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/cuda/gpu.h"
#include "tests/kernels/shape_count.h"
#include "tests/reference/reference_ops.h"

namespace octet::test {
namespace {

int64_t NumRows(Random& random, uint64_t seed) {
  return seed == 0 ? 0 : seed == 1 ? 1 : random.Integer(1, 40);
}

std::vector<int32_t> RandomRows(Random& random, int64_t count, int64_t limit) {
  std::vector<int32_t> rows;
  for (int64_t i = 0; i < count; ++i) {
    rows.push_back(static_cast<int32_t>(random.Integer(0, limit - 1)));
  }
  return rows;
}

// Rows of every size in bytes: those that take 16 bytes at a time, and those
// that take 4, 2 and 1; more than one warp's piece.
TEST(GatherRowsTest, BytesOfRandomShapes) {
  Gpu gpu;
  ShapeCount shapes;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Random random(seed);
    const int64_t unit = int64_t{1} << random.Integer(0, 4);
    const int64_t row_bytes =
        unit * random.Integer(1, seed % 8 == 0 ? 300 : 60);
    const int64_t num_sources = random.Integer(1, 30);
    const int64_t num_rows = NumRows(random, seed);
    shapes.Add(num_rows, {row_bytes, num_sources});
    SCOPED_TRACE(testing::Message()
                 << num_rows << " rows of " << row_bytes << " bytes");
    std::vector<uint8_t> src(num_sources * row_bytes);
    for (uint8_t& byte : src) {
      byte = static_cast<uint8_t>(random.Integer(0, 255));
    }
    const std::vector<int32_t> ids = RandomRows(random, num_rows, num_sources);
    const Tensor out = gpu.New(DType::kU8, {num_rows, row_bytes});
    Must(cuda::LaunchGatherRows(
        {gpu.Upload(DType::kU8, src, {num_sources, row_bytes}).data(),
         gpu.Upload(DType::kI32, ids, {num_rows}).as<int32_t>(), out.data(),
         num_rows, row_bytes},
        gpu.stream()));
    const std::vector<uint8_t> result = gpu.Download<uint8_t>(out);
    for (int64_t i = 0; i < num_rows; ++i) {
      ASSERT_EQ(std::memcmp(&result[i * row_bytes], &src[ids[i] * row_bytes],
                            row_bytes),
                0)
          << "row " << i;
    }
  }
  shapes.Check();
}

// What stands beside the rows is neither read (checked builds) nor written.
TEST(GatherRowsTest, OddAddressesKeepToTheirRows) {
  Gpu gpu;
  std::vector<uint8_t> src(100);
  for (size_t i = 0; i < src.size(); ++i) src[i] = static_cast<uint8_t>(i);
  const Tensor device_src = gpu.Upload(DType::kU8, src, {100});
  const Tensor ids = gpu.Upload(DType::kI32, std::vector<int32_t>{2, 0}, {2});
  for (int64_t shift = 0; shift < 17; ++shift) {
    const Tensor out = gpu.Filled(DType::kU8, {64});
    Must(cuda::LaunchGatherRows(
        {device_src.as<uint8_t>() + shift, ids.as<int32_t>(),
         out.as<uint8_t>() + shift, 2, 16},
        gpu.stream()));
    std::vector<uint8_t> expected(64, 0xff);
    for (int64_t i = 0; i < 16; ++i) {
      expected[shift + i] = static_cast<uint8_t>(shift + 32 + i);
      expected[shift + 16 + i] = static_cast<uint8_t>(shift + i);
    }
    EXPECT_EQ(gpu.Download<uint8_t>(out), expected) << shift;
  }
}

class CombineRowsTest : public testing::Test {
 protected:
  // Rows [begin, begin + count) of the tokens; `shift` elements into memory.
  std::vector<float> Run(int64_t begin, int64_t count, int64_t shift = 0) {
    const auto part = [&](const auto& all, int64_t width) {
      return absl::MakeConstSpan(all).subspan(begin * width, count * width);
    };
    const auto shifted = [&](auto values) {
      values.insert(values.begin(), shift, {});
      return values;
    };
    const std::vector<float> before(part(before_, hidden_).begin(),
                                    part(before_, hidden_).end());
    const Tensor out =
        gpu_.Upload(DType::kF32, shifted(before), {count * hidden_ + shift});
    const int64_t num_elements = static_cast<int64_t>(rows_.size()) + shift;
    const Tensor rows =
        bf16_
            ? gpu_.Upload(DType::kBF16, shifted(ToBF16(rows_)), {num_elements})
            : gpu_.Upload(DType::kF32, shifted(rows_), {num_elements});
    Must(cuda::LaunchCombineRows(
        {static_cast<const char*>(rows.data()) + shift * SizeOf(rows.dtype()),
         bf16_,
         gpu_.Upload(DType::kI32, part(slot_rows_, top_k_), {count, top_k_})
             .as<int32_t>(),
         gpu_.Upload(DType::kF32, part(weights_, top_k_), {count, top_k_})
             .as<float>(),
         out.as<float>() + shift, count, static_cast<int32_t>(top_k_),
         static_cast<int32_t>(hidden_)},
        gpu_.stream()));
    std::vector<float> result = gpu_.Download<float>(out);
    result.erase(result.begin(), result.begin() + shift);
    return result;
  }

  void Fill(uint64_t seed) {
    Random random(seed);
    const int64_t num_sources = random.Integer(1, 30);
    hidden_ = random.Integer(0, 1) ? 8 * random.Integer(1, 40)
                                   : random.Integer(1, 200);
    if (seed % 9 == 8) hidden_ = 1032;  // more than one warp's piece
    top_k_ = random.Integer(1, 5);
    num_tokens_ = NumRows(random, seed);
    bf16_ = random.Integer(0, 1);
    rows_ = random.Floats(num_sources * hidden_);
    if (bf16_) rows_ = ToFloats(ToBF16(rows_));
    weights_ = random.Floats(num_tokens_ * top_k_);
    before_ = random.Floats(num_tokens_ * hidden_);
    slot_rows_ = RandomRows(random, num_tokens_ * top_k_, num_sources);
  }

  Gpu gpu_;
  int64_t hidden_ = 0, top_k_ = 0, num_tokens_ = 0;
  bool bf16_ = false;
  std::vector<float> rows_, weights_, before_;
  std::vector<int32_t> slot_rows_;
};

TEST_F(CombineRowsTest, RandomShapesMatchTheReferenceInEveryBatch) {
  ShapeCount shapes;
  for (uint64_t seed = 0; seed < 36; ++seed) {
    Fill(seed);
    shapes.Add(num_tokens_, {top_k_, hidden_, bf16_});
    SCOPED_TRACE(testing::Message() << "T " << num_tokens_ << " K " << top_k_
                                    << " H " << hidden_ << " bf16 " << bf16_);
    const std::vector<float> result = Run(0, num_tokens_);
    Values expected = Combine(ToValues(rows_), slot_rows_, ToValues(weights_),
                              top_k_, hidden_);
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += before_[i];
    // Up to 6 roundings of sums of a few units.
    const Difference difference = Compare(ToValues(result), expected);
    EXPECT_TRUE(difference.comparable);
    EXPECT_LT(difference.max_absolute, 4e-6);
    for (int64_t t = 0; t < num_tokens_; t += 7) {
      EXPECT_EQ(FirstMismatch(
                    absl::MakeConstSpan(result).subspan(t * hidden_, hidden_),
                    Run(t, 1)),
                "");
    }
  }
  shapes.Check();
}

// The element-wise kernel gives the bits of the vectorised one.
TEST_F(CombineRowsTest, AddressesChangeNothing) {
  for (uint64_t seed = 2; seed < 8; ++seed) {
    Fill(seed);
    EXPECT_EQ(FirstMismatch(Run(0, num_tokens_), Run(0, num_tokens_, 1)), "");
  }
}

// ((w0 r0 + w1 r1) + w2 r2) + before, each in f32: with these numbers every
// other order gives another sum.
TEST_F(CombineRowsTest, SumsInSlotOrder) {
  hidden_ = 1;
  top_k_ = 3;
  num_tokens_ = 1;
  rows_ = {1e8f, -1e8f, 1.0f};
  slot_rows_ = {0, 1, 2};
  weights_ = {1, 1, 1};
  before_ = {0.5f};
  EXPECT_EQ(Run(0, 1)[0], 1.5f);
  slot_rows_ = {0, 2, 1};
  EXPECT_EQ(Run(0, 1)[0], 0.5f);
}

}  // namespace
}  // namespace octet::test
