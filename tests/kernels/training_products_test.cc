// The products of training through kernels/training_ops.h: against the plain
// formulas, bit by bit over rows, groups and threads.
#include <cstdint>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/training_test.h"

namespace octet::test {
namespace {

class TrainingProductsTest : public TrainingTest {
 protected:
  // Some of E groups with rows, some without; first all without, then one row.
  static std::vector<int64_t> RandomOffsets(Random& random, uint64_t seed,
                                            int64_t num_groups) {
    std::vector<int64_t> offsets = {0};
    for (int64_t g = 0; g < num_groups; ++g) {
      int64_t count = random.Integer(0, 2) ? Size(random, seed, 20) : 0;
      if (seed < 2) count = g == 0 ? static_cast<int64_t>(seed) : 0;
      offsets.push_back(offsets.back() + count);
    }
    return offsets;
  }

  // Matrices [n, k] with known contents.
  struct Weights {
    std::vector<std::vector<float>> values;
    std::vector<std::unique_ptr<PackedMatrix>> owned;
    std::vector<const PackedMatrix*> matrices;
  };
  Weights MakeWeights(Device& device, DType dtype, int64_t count, int64_t n,
                      int64_t k, uint64_t seed) {
    Random random(1000 + seed);
    Weights weights;
    for (int64_t g = 0; g < count; ++g) {
      weights.values.push_back(RoundTo(dtype, random.Floats(n * k)));
      weights.owned.push_back(*device.backend().NewPackedMatrix(dtype, n, k));
      weights.matrices.push_back(weights.owned.back().get());
      EXPECT_TRUE(device.backend()
                      .PackRows(*weights.owned.back(), 0,
                                ConstTensor(weights.values.back().data(),
                                            DType::kF32, {n, k}))
                      .ok());
    }
    return weights;
  }
};

TEST_P(TrainingProductsTest, BackwardInputOfRandomShapesInEveryGroup) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const DType dtype = RandomDType(random);
    const bool accumulate = random.Integer(0, 1) == 1;
    const DType out = accumulate ? DType::kF32 : RandomDType(random);
    const int64_t n = Size(random, seed, 150);
    const int64_t k = Size(random, seed, 150);
    const int64_t num_groups = random.Integer(1, 5);
    const std::vector<int64_t> offsets =
        RandomOffsets(random, seed, num_groups);
    const int64_t num_rows = offsets.back();
    shapes.Add(num_rows, {n, k, num_groups});
    const std::vector<float> dy = RoundTo(dtype, random.Floats(num_rows * n));
    const std::vector<float> before = random.Floats(num_rows * k);
    const auto new_dx = [&](Device& device, int64_t begin, int64_t end) {
      return accumulate ? device.Upload(RowsOf(before, begin, end, k),
                                        {end - begin, k})
                        : device.New(out, {end - begin, k});
    };
    const Weights w = MakeWeights(device_, dtype, num_groups, n, k, seed);
    const Weights single_w =
        MakeWeights(single_, dtype, num_groups, n, k, seed);
    const Tensor dx = new_dx(device_, 0, num_rows);
    ASSERT_TRUE(train_ops::GroupedGemmBackwardInput(
                    Training(device_),
                    device_.UploadAs(dtype, dy, {num_rows, n}), w.matrices,
                    offsets, accumulate, dx, device_.stream())
                    .ok());
    const std::vector<float> result = device_.Floats(dx);
    Values expected;
    for (int64_t g = 0; g < num_groups; ++g) {
      const Values part = MatMulBackwardInput(
          ToValues(RowsOf(dy, offsets[g], offsets[g + 1], n)),
          ToValues(w.values[g]), k);
      expected.insert(expected.end(), part.begin(), part.end());
      for (int64_t t = offsets[g]; t < offsets[g + 1];
           t += GetParam().thinned_repeats) {
        const Tensor alone = new_dx(single_, t, t + 1);
        ASSERT_TRUE(
            train_ops::GemmBackwardInput(
                Training(single_),
                single_.UploadAs(dtype, RowsOf(dy, t, t + 1, n), {1, n}),
                *single_w.matrices[g], accumulate, alone, single_.stream())
                .ok());
        EXPECT_EQ(
            FirstMismatch(RowsOf(result, t, t + 1, k), single_.Floats(alone)),
            "");
      }
    }
    for (size_t i = 0; accumulate && i < expected.size(); ++i) {
      expected[i] += before[i];
    }
    const Difference difference = Compare(ToValues(result), expected);
    EXPECT_TRUE(difference.comparable);
    EXPECT_LE(difference.max_relative, ToleranceOf(out));
  });
}

TEST_P(TrainingProductsTest, GroupedGemmAccumulateOfRandomShapes) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const DType dtype = RandomDType(random);
    const int64_t n = Size(random, seed, 150);
    const int64_t k = Size(random, seed, 150);
    const int64_t num_groups = random.Integer(1, 5);
    const std::vector<int64_t> offsets =
        RandomOffsets(random, seed, num_groups);
    const int64_t num_rows = offsets.back();
    shapes.Add(num_rows, {n, k, num_groups});
    const std::vector<float> x = RoundTo(dtype, random.Floats(num_rows * k));
    const std::vector<float> before = random.Floats(num_rows * n);
    const Weights w = MakeWeights(device_, dtype, num_groups, n, k, seed);
    const Tensor out = device_.Upload(before, {num_rows, n});
    ASSERT_TRUE(train_ops::GroupedGemmAccumulate(
                    Training(device_),
                    device_.UploadAs(dtype, x, {num_rows, k}), w.matrices,
                    offsets, out, device_.stream())
                    .ok());
    Values expected;
    for (int64_t g = 0; g < num_groups; ++g) {
      const Values part =
          MatMul(ToValues(RowsOf(x, offsets[g], offsets[g + 1], k)),
                 ToValues(w.values[g]), k);
      expected.insert(expected.end(), part.begin(), part.end());
    }
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += before[i];
    const Difference difference =
        Compare(ToValues(device_.Floats(out)), expected);
    EXPECT_TRUE(difference.comparable);
    EXPECT_LE(difference.max_relative, ToleranceOf(DType::kF32));
  });
}

TEST_P(TrainingProductsTest, BackwardWeightOfRandomShapesSumsRowsInOneOrder) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const DType dtype = RandomDType(random);
    const bool accumulate = random.Integer(0, 1) == 1;
    const float scale = seed % 2 ? 1.0f : 0.75f;
    const int64_t num_rows = RandomRows(random, seed) * (seed % 3 ? 1 : 4);
    const int64_t n = Size(random, seed, 150);
    const int64_t k = Size(random, seed, 150);
    shapes.Add(num_rows, {n, k});
    const std::vector<float> x = RoundTo(dtype, random.Floats(num_rows * k));
    const std::vector<float> dy = RoundTo(dtype, random.Floats(num_rows * n));
    const std::vector<float> before = random.Floats(n * k);
    std::vector<std::vector<float>> results;
    for (Device* device : {&device_, &single_}) {
      const Tensor dw = accumulate ? device->Upload(before, {n, k})
                                   : device->New(DType::kF32, {n, k});
      ASSERT_TRUE(train_ops::GemmBackwardWeight(
                      Training(*device),
                      device->UploadAs(dtype, x, {num_rows, k}),
                      device->UploadAs(dtype, dy, {num_rows, n}), scale,
                      accumulate, dw, device->stream())
                      .ok());
      results.push_back(device->Floats(dw));
    }
    Values expected = MatMulBackwardWeight(ToValues(x), ToValues(dy), k, n);
    for (size_t i = 0; i < expected.size(); ++i) {
      expected[i] = scale * expected[i] + (accumulate ? before[i] : 0.0f);
    }
    const Difference difference = Compare(ToValues(results[0]), expected);
    EXPECT_TRUE(difference.comparable);
    EXPECT_LE(difference.max_relative, 1e-5);  // up to 160 rows in a row
    EXPECT_EQ(FirstMismatch(results[0], results[1]), "");
  });
}

INSTANTIATE_TEST_SUITE_P(Backend, TrainingProductsTest,
                         testing::ValuesIn(BackendCases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace octet::test
