// Cross entropy and the embedding's gradient, the ends of the model; and
// indices that only the CPU backend checks, of every operation that takes some.
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/kernels/training_test.h"

namespace octet::test {
namespace {

using testing::HasSubstr;

class TrainingEndsTest : public TrainingTest {};

TEST_P(TrainingEndsTest, CrossEntropyOfRandomShapes) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const int64_t num_rows = RandomRows(random, seed);
    const int64_t vocab = Size(random, seed, seed % 4 ? 300 : 5000);
    shapes.Add(num_rows, {vocab});
    const DType dtype = RandomDType(random);
    const bool wanted = seed % 5 != 4;
    const std::vector<float> logits = random.Floats(num_rows * vocab, 5.0f);
    const std::vector<float> scales = random.Floats(num_rows);
    std::vector<int32_t> targets;
    for (int64_t i = 0; i < num_rows; ++i) {
      targets.push_back(static_cast<int32_t>(random.Integer(-1, vocab - 1)));
    }
    const Losses expected =
        CrossEntropy(ToValues(logits), targets, ToValues(scales));
    const auto run = [&](Device& device, int64_t begin, int64_t end,
                         std::vector<float>* losses) {
      const int64_t rows = end - begin;
      const Tensor loss = device.New(DType::kF32, {rows});
      const Tensor dlogits =
          wanted ? device.New(dtype, {rows, vocab}) : Tensor();
      EXPECT_TRUE(
          train_ops::CrossEntropy(
              Training(device),
              device.Upload(RowsOf(logits, begin, end, vocab), {rows, vocab}),
              device.Upload(RowsOf(targets, begin, end, 1), {rows}),
              device.Upload(RowsOf(scales, begin, end, 1), {rows}), loss,
              dlogits, device.stream())
              .ok());
      *losses = device.Floats(loss);
      return wanted ? device.Floats(dlogits) : std::vector<float>();
    };
    CheckRows(num_rows, expected.losses, ToleranceOf(DType::kF32),
              [&](Device& device, int64_t begin, int64_t end) {
                std::vector<float> losses;
                run(device, begin, end, &losses);
                return losses;
              });
    if (!wanted) return;
    CheckRows(num_rows, expected.dlogits, ToleranceOf(dtype),
              [&](Device& device, int64_t begin, int64_t end) {
                std::vector<float> losses;
                return run(device, begin, end, &losses);
              });
  });
}

// The gradient may take the logits' place.
TEST_P(TrainingEndsTest, CrossEntropyInPlace) {
  Random random(1);
  const std::vector<float> logits = random.Floats(3 * 700, 5.0f);
  const std::vector<int32_t> targets = {699, -1, 3};
  const std::vector<float> scales = {1.0f, 1.0f, 0.5f};
  const auto run = [&](bool in_place) {
    const Tensor in = device_.Upload(logits, {3, 700});
    const Tensor out = in_place ? in : device_.New(DType::kF32, {3, 700});
    EXPECT_TRUE(train_ops::CrossEntropy(
                    Training(device_), in, device_.Upload(targets, {3}),
                    device_.Upload(scales, {3}), device_.New(DType::kF32, {3}),
                    out, device_.stream())
                    .ok());
    return device_.Floats(out);
  };
  EXPECT_EQ(FirstMismatch(run(true), run(false)), "");
}

// The gradient of a sure token keeps its digits: exp(-20) is far below the
// last digit of the target's probability.
TEST_P(TrainingEndsTest, CrossEntropyOfASureToken) {
  const std::vector<float> logits = {20.0f, 0.0f};
  const Tensor loss = device_.New(DType::kF32, {1});
  const Tensor dlogits = device_.New(DType::kF32, {1, 2});
  ASSERT_TRUE(
      train_ops::CrossEntropy(Training(device_), device_.Upload(logits, {1, 2}),
                              device_.Upload(std::vector<int32_t>{0}, {1}),
                              device_.Upload(std::vector<float>{1.0f}, {1}),
                              loss, dlogits, device_.stream())
          .ok());
  EXPECT_NEAR(device_.Floats(loss)[0], 0.0, 1e-7);
  EXPECT_NEAR(device_.Floats(dlogits)[1] / std::exp(-20.0), 1.0, 1e-5);
}

// NaN stays in its row and is seen in its loss.
TEST_P(TrainingEndsTest, CrossEntropyOfNan) {
  std::vector<float> logits(2 * 40, 1.0f);
  logits[7] = std::numeric_limits<float>::quiet_NaN();
  const Tensor loss = device_.New(DType::kF32, {2});
  ASSERT_TRUE(train_ops::CrossEntropy(
                  Training(device_), device_.Upload(logits, {2, 40}),
                  device_.Upload(std::vector<int32_t>{0, 0}, {2}),
                  device_.Upload(std::vector<float>{1.0f, 1.0f}, {2}), loss,
                  Tensor(), device_.stream())
                  .ok());
  EXPECT_TRUE(std::isnan(device_.Floats(loss)[0]));
  EXPECT_NEAR(device_.Floats(loss)[1], std::log(40.0), 1e-6);
}

// Rows of one id are summed by rising t: the bits of a plain loop.
TEST_P(TrainingEndsTest, EmbeddingBackwardOfRandomShapesAddsByRisingRow) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const int64_t num_rows = RandomRows(random, seed) * (seed % 3 ? 1 : 5);
    const int64_t hidden = Size(random, seed, 600);
    const int64_t vocab = random.Integer(1, 20);
    shapes.Add(num_rows, {hidden, vocab});
    const std::vector<float> dx = random.Floats(num_rows * hidden);
    std::vector<float> table = random.Floats(vocab * hidden);
    std::vector<int32_t> ids;
    for (int64_t t = 0; t < num_rows; ++t) {
      ids.push_back(static_cast<int32_t>(random.Integer(0, vocab - 1)));
    }
    for (Device* device : {&device_, &single_}) {
      const Tensor dtable = device->Upload(table, {vocab, hidden});
      ASSERT_TRUE(train_ops::EmbeddingBackward(
                      Training(*device), device->Upload(dx, {num_rows, hidden}),
                      device->Upload(ids, {num_rows}), dtable, device->stream())
                      .ok());
      std::vector<float> expected = table;
      for (int64_t t = 0; t < num_rows; ++t) {
        for (int64_t i = 0; i < hidden; ++i) {
          expected[ids[t] * hidden + i] += dx[t * hidden + i];
        }
      }
      EXPECT_EQ(FirstMismatch(device->Floats(dtable), expected), "");
    }
  });
}

TEST_P(TrainingEndsTest, IndicesInBackendMemoryAreChecked) {
  if (!GetParam().checks_indices) GTEST_SKIP() << "not on this backend";
  const Tensor x = device_.Upload(std::vector<float>(8, 1.0f), {2, 4});
  const Tensor two = device_.Upload(std::vector<float>(2, 1.0f), {2});
  const Tensor out = device_.Upload(std::vector<float>(8, 7.0f), {2, 4});
  const auto ids = [&](std::vector<int32_t> values) {
    return device_.Upload(values, {2});
  };
  const auto column = [&](std::vector<int32_t> values) {
    return device_.Upload(values, {2, 1});
  };
  const Tensor one_column = device_.Upload(std::vector<float>(2), {2, 1});
  TrainingBackend& training = Training(device_);
  Stream& stream = device_.stream();
  EXPECT_THAT(
      train_ops::EmbeddingBackward(training, x, ids({0, 2}), out, stream)
          .message(),
      HasSubstr("EmbeddingBackward: ids[1] is 2, expected 0 to 1"));
  EXPECT_THAT(
      train_ops::CrossEntropy(training, x, ids({-1, 4}), two, two, out, stream)
          .message(),
      HasSubstr("CrossEntropy: targets[1] is 4, expected -1 (none) to 3"));
  EXPECT_THAT(
      train_ops::CrossEntropy(training, x, ids({-2, 0}), two, two, out, stream)
          .message(),
      HasSubstr("CrossEntropy: targets[0] is -2, expected -1 (none) to 3"));
  EXPECT_THAT(
      train_ops::SlotDots(training, x, x, column({0, -1}), one_column, stream)
          .message(),
      HasSubstr("SlotDots: slot_rows[1] is -1, expected 0 to 1"));
  EXPECT_THAT(train_ops::RouterBackward(training, column({4, 0}), one_column,
                                        one_column, out, stream)
                  .message(),
              HasSubstr("RouterBackward: topk_ids[0] is 4, expected 0 to 3"));
  EXPECT_EQ(device_.Floats(out), std::vector<float>(8, 7.0f));
}

INSTANTIATE_TEST_SUITE_P(Backend, TrainingEndsTest,
                         testing::ValuesIn(BackendCases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace octet::test
