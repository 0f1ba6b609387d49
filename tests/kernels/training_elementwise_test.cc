// Casts, sums, blocks, dropout and the optimizer: against the plain formulas,
// exactly where there is one rounding.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/training_test.h"

namespace octet::test {
namespace {

class TrainingElementwiseTest : public TrainingTest {
 protected:
  // Around the sizes of vectors, chunks and pieces.
  static int64_t RandomCount(Random& random, uint64_t seed) {
    if (seed < 2) return static_cast<int64_t>(seed);
    return Size(random, seed, seed % 4 ? 3000 : 200000);
  }
};

TEST_P(TrainingElementwiseTest, CastOfRandomShapesRoundsToNearest) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const int64_t n = RandomCount(random, seed);
    shapes.Add(n, {n});
    const DType in = RandomDType(random);
    const DType out = RandomDType(random);
    std::vector<float> x = random.Floats(n, 100.0f);
    if (n > 4) x[3] = std::numeric_limits<float>::infinity();
    if (n > 4) x[2] = std::numeric_limits<float>::denorm_min();
    x = RoundTo(in, x);
    const Tensor y = device_.New(out, {n});
    ASSERT_TRUE(train_ops::Cast(Training(device_), device_.UploadAs(in, x, {n}),
                                y, device_.stream())
                    .ok());
    EXPECT_EQ(FirstMismatch(device_.Floats(y), RoundTo(out, x)), "");
  });
}

TEST_P(TrainingElementwiseTest, AddScaledOfRandomShapesIsOneProductAndOneSum) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const int64_t n = RandomCount(random, seed);
    shapes.Add(n, {n});
    const float scale = random.Normal();
    const std::vector<float> x = random.Floats(n);
    const std::vector<float> before = random.Floats(n);
    std::vector<float> expected;
    for (int64_t i = 0; i < n; ++i) {
      expected.push_back(std::fma(scale, x[i], before[i]));
    }
    const Tensor out = device_.Upload(before, {n});
    ASSERT_TRUE(train_ops::AddScaled(Training(device_), device_.Upload(x, {n}),
                                     scale, out, device_.stream())
                    .ok());
    EXPECT_EQ(FirstMismatch(device_.Floats(out), expected), "");
  });
}

TEST_P(TrainingElementwiseTest, CopyBlockOfRandomShapesTouchesNothingElse) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const int64_t src_cols = Size(random, seed, 300);
    const int64_t dst_cols = Size(random, seed, 300);
    const int64_t src_rows = random.Integer(1, 40);
    const int64_t dst_rows = random.Integer(1, 40);
    const int64_t rows =
        std::min({RandomRows(random, seed), src_rows, dst_rows});
    const int64_t cols = random.Integer(0, std::min(src_cols, dst_cols));
    shapes.Add(rows, {cols, src_cols, dst_cols});
    const MatrixBlock from = {random.Integer(0, src_rows - rows),
                              random.Integer(0, src_cols - cols)};
    const MatrixBlock to = {random.Integer(0, dst_rows - rows),
                            random.Integer(0, dst_cols - cols)};
    const bool accumulate = random.Integer(0, 1) == 1;
    const std::vector<float> src = random.Floats(src_rows * src_cols);
    std::vector<float> dst = random.Floats(dst_rows * dst_cols);
    const Tensor out = device_.Upload(dst, {dst_rows, dst_cols});
    ASSERT_TRUE(train_ops::CopyBlock(Training(device_),
                                     device_.Upload(src, {src_rows, src_cols}),
                                     from, out, to, rows, cols, accumulate,
                                     device_.stream())
                    .ok());
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        float& at = dst[(to.row + r) * dst_cols + to.col + c];
        const float value = src[(from.row + r) * src_cols + from.col + c];
        at = accumulate ? at + value : value;
      }
    }
    EXPECT_EQ(FirstMismatch(device_.Floats(out), dst), "");
  });
}

TEST_P(TrainingElementwiseTest,
       DropoutOfRandomShapesDependsOnSeedRowKeyAndColumn) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const int64_t num_rows = RandomRows(random, seed);
    const int64_t cols = Size(random, seed, 500);
    shapes.Add(num_rows, {cols});
    const DType in = RandomDType(random);
    const bool accumulate = random.Integer(0, 1) == 1;
    const DType out = accumulate ? DType::kF32 : RandomDType(random);
    const float p = seed % 5 ? static_cast<float>(random.Uniform()) : 0.0f;
    const uint64_t key = 0x123456789abcdef0u * (seed + 1);
    const std::vector<float> x = RoundTo(in, random.Floats(num_rows * cols));
    const std::vector<float> before = random.Floats(num_rows * cols);
    std::vector<int64_t> row_keys;
    Values expected;
    for (int64_t t = 0; t < num_rows; ++t) {
      row_keys.push_back(random.Integer(0, int64_t{1} << 50) - (t % 2));
      for (int64_t j = 0; j < cols; ++j) {
        const int64_t at = t * cols + j;
        expected.push_back(x[at] * DropoutFactor(key, row_keys[t], j, p) +
                           (accumulate ? before[at] : 0.0f));
      }
    }
    CheckRows(num_rows, expected, ToleranceOf(out),
              [&](Device& device, int64_t begin, int64_t end) {
                const int64_t rows = end - begin;
                const Tensor y =
                    accumulate ? device.Upload(RowsOf(before, begin, end, cols),
                                               {rows, cols})
                               : device.New(out, {rows, cols});
                EXPECT_TRUE(
                    train_ops::Dropout(
                        Training(device),
                        device.UploadAs(in, RowsOf(x, begin, end, cols),
                                        {rows, cols}),
                        device.Upload(RowsOf(row_keys, begin, end, 1), {rows}),
                        key, p, accumulate, y, device.stream())
                        .ok());
                return device.Floats(y);
              });
  });
}

// What is dropped is exactly zero and what is kept is not, whatever p.
TEST_P(TrainingElementwiseTest, DropoutComparesExactly) {
  constexpr int64_t kCols = 4096;
  const std::vector<float> ones(kCols, 1.0f);
  const std::vector<int64_t> row_keys = {-5};
  for (const float p : {0x1p-32f, 0.1f, 0.5f, 0.999999f, 0x1.fffffep-1f}) {
    const Tensor y = device_.New(DType::kF32, {1, kCols});
    ASSERT_TRUE(train_ops::Dropout(Training(device_),
                                   device_.Upload(ones, {1, kCols}),
                                   device_.Upload(row_keys, {1}), 77, p, false,
                                   y, device_.stream())
                    .ok());
    const std::vector<float> result = device_.Floats(y);
    for (int64_t j = 0; j < kCols; ++j) {
      EXPECT_EQ(result[j] != 0.0f, DropoutFactor(77, -5, j, p) != 0.0) << j;
    }
  }
}

TEST_P(TrainingElementwiseTest, SumOfSquaresByChunks) {
  const int64_t chunk = TrainingBackend::kSquareChunk;
  for (const int64_t n :
       {int64_t{0}, int64_t{1}, int64_t{777}, chunk, 2 * chunk + 5}) {
    SCOPED_TRACE(n);
    const std::vector<float> x = Random(n).Floats(n);
    std::vector<double> sums = {1, 2, 3};
    std::vector<double> single_sums;
    ASSERT_TRUE(train_ops::SumOfSquares(Training(device_),
                                        device_.Upload(x, {n}), &sums,
                                        device_.stream())
                    .ok());
    ASSERT_TRUE(train_ops::SumOfSquares(Training(single_),
                                        single_.Upload(x, {n}), &single_sums,
                                        single_.stream())
                    .ok());
    const Values expected = SumOfSquares(ToValues(x), chunk);
    ASSERT_EQ(sums.size(), expected.size());
    EXPECT_EQ(sums, single_sums);
    for (size_t c = 0; c < sums.size(); ++c) {
      EXPECT_NEAR(sums[c] / expected[c], 1.0, 1e-12);
    }
  }
}

// A few steps: errors of the moments stay below a few roundings, those of the
// weights below some roundings of a step.
TEST_P(TrainingElementwiseTest, AdamWOfRandomShapes) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const int64_t n = RandomCount(random, seed);
    shapes.Add(n, {n});
    AdamWParams params;
    params.learning_rate = 1e-2f;
    params.weight_decay = seed % 3 ? 0.1f : 0.0f;
    params.grad_scale = seed % 2 ? 1.0f : 0.37f;
    params.beta2 = seed % 2 ? 0.95f : 0.999f;
    const int64_t first = seed % 4 == 3 ? 5000 : 1;
    const std::vector<float> before = random.Floats(n);
    Values weight = ToValues(before), m(n), v(n);
    const Tensor weight_tensor = device_.Upload(before, {n});
    const Tensor single_weight = single_.Upload(before, {n});
    const std::vector<float> zeros(n);
    const Tensor moments[] = {device_.Upload(zeros, {n}),
                              device_.Upload(zeros, {n})};
    const Tensor single_moments[] = {single_.Upload(zeros, {n}),
                                     single_.Upload(zeros, {n})};
    for (params.step = first; params.step < first + 3; ++params.step) {
      const std::vector<float> grad = random.Floats(n);
      AdamW(params, ToValues(grad), weight, m, v);
      ASSERT_TRUE(train_ops::AdamW(Training(device_), params,
                                   device_.Upload(grad, {n}), weight_tensor,
                                   moments[0], moments[1], device_.stream())
                      .ok());
      ASSERT_TRUE(train_ops::AdamW(Training(single_), params,
                                   single_.Upload(grad, {n}), single_weight,
                                   single_moments[0], single_moments[1],
                                   single_.stream())
                      .ok());
    }
    const auto check = [&](Tensor tensor, Tensor single, const Values& want) {
      const std::vector<float> result = device_.Floats(tensor);
      const Difference difference = Compare(ToValues(result), want);
      EXPECT_TRUE(difference.comparable);
      EXPECT_LE(difference.max_relative, 1e-6);
      EXPECT_EQ(FirstMismatch(result, single_.Floats(single)), "");
    };
    check(weight_tensor, single_weight, weight);
    check(moments[0], single_moments[0], m);
    check(moments[1], single_moments[1], v);
  });
}

TEST_P(TrainingElementwiseTest, RepackOfRandomShapes) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const DType dtype = RandomDType(random);
    const int64_t n = random.Integer(1, 150);
    const int64_t k = Size(random, seed, 200);
    const int64_t count = std::min(RandomRows(random, seed), n);
    shapes.Add(count, {n, k});
    const int64_t begin = random.Integer(0, n - count);
    auto matrix = *device_.backend().NewPackedMatrix(dtype, n, k);
    const std::vector<float> rows = random.Floats(count * k);
    ASSERT_TRUE(train_ops::Repack(Training(device_), *matrix, begin,
                                  device_.Upload(rows, {count, k}),
                                  device_.stream())
                    .ok());
    ASSERT_TRUE(device_.backend().Synchronize(device_.stream()).ok());
    std::vector<float> f32(n * k);
    std::vector<BF16> bf16(n * k);
    const Tensor host(dtype == DType::kF32 ? static_cast<void*>(f32.data())
                                           : static_cast<void*>(bf16.data()),
                      dtype, {n, k});
    ASSERT_TRUE(device_.backend().UnpackRows(*matrix, 0, host).ok());
    std::vector<float> expected(n * k);
    const std::vector<float> rounded = RoundTo(dtype, rows);
    std::copy(rounded.begin(), rounded.end(), expected.begin() + begin * k);
    EXPECT_EQ(
        FirstMismatch(dtype == DType::kF32 ? f32 : ToFloats(bf16), expected),
        "");
  });
}

INSTANTIATE_TEST_SUITE_P(Backend, TrainingElementwiseTest,
                         testing::ValuesIn(BackendCases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace octet::test
