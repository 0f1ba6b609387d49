// SwiGLU, RMS norm, router and combine of training:
// against the plain formulas on random shapes, and bit by bit over batch
// compositions and threads.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/training_test.h"

namespace octet::test {
namespace {

class TrainingRowOpsTest : public TrainingTest {};

TEST_P(TrainingRowOpsTest, SwiGluOfRandomShapes) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const int64_t num_rows = RandomRows(random, seed);
    const int64_t ffn = Size(random, seed, 300);
    shapes.Add(num_rows, {ffn});
    const DType in = RandomDType(random);
    const DType out = RandomDType(random);
    const std::vector<float> h =
        RoundTo(in, random.Floats(num_rows * 2 * ffn, 3.0f));
    CheckRows(
        num_rows, GatedSilu(ToValues(h), ffn), ToleranceOf(out),
        [&](Device& device, int64_t begin, int64_t end) {
          const int64_t rows = end - begin;
          const Tensor y = device.New(out, {rows, ffn});
          EXPECT_TRUE(train_ops::SwiGlu(
                          Training(device),
                          device.UploadAs(in, RowsOf(h, begin, end, 2 * ffn),
                                          {rows, 2 * ffn}),
                          y, device.stream())
                          .ok());
          return device.Floats(y);
        });
  });
}

TEST_P(TrainingRowOpsTest, SwiGluBackwardOfRandomShapes) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const int64_t num_rows = RandomRows(random, seed);
    const int64_t ffn = Size(random, seed, 300);
    shapes.Add(num_rows, {ffn});
    const DType in = RandomDType(random);
    const DType out = RandomDType(random);
    const DType grad = RandomDType(random);
    const std::vector<float> h =
        RoundTo(in, random.Floats(num_rows * 2 * ffn, 3.0f));
    const std::vector<float> dout =
        RoundTo(grad, random.Floats(num_rows * ffn));
    CheckRows(
        num_rows, GatedSiluBackward(ToValues(h), ToValues(dout), ffn),
        ToleranceOf(out), [&](Device& device, int64_t begin, int64_t end) {
          const int64_t rows = end - begin;
          const Tensor dh = device.New(out, {rows, 2 * ffn});
          EXPECT_TRUE(train_ops::SwiGluBackward(
                          Training(device),
                          device.UploadAs(in, RowsOf(h, begin, end, 2 * ffn),
                                          {rows, 2 * ffn}),
                          device.UploadAs(grad, RowsOf(dout, begin, end, ffn),
                                          {rows, ffn}),
                          dh, device.stream())
                          .ok());
          return device.Floats(dh);
        });
  });
}

// The gradient may take the place of h, as training does it.
TEST_P(TrainingRowOpsTest, SwiGluBackwardInPlace) {
  Random random(1);
  const std::vector<float> h = random.Floats(5 * 2 * 77, 3.0f);
  const Tensor dout = device_.Upload(random.Floats(5 * 77), {5, 77});
  const auto run = [&](bool in_place) {
    const Tensor in = device_.Upload(h, {5, 2 * 77});
    const Tensor dh = in_place ? in : device_.New(DType::kF32, {5, 2 * 77});
    EXPECT_TRUE(train_ops::SwiGluBackward(Training(device_), in, dout, dh,
                                          device_.stream())
                    .ok());
    return device_.Floats(dh);
  };
  EXPECT_EQ(FirstMismatch(run(true), run(false)), "");
}

// The gate's far ends: no NaN, and the limits of the formula.
TEST_P(TrainingRowOpsTest, SwiGluOfHugeGates) {
  const std::vector<float> h = {-200.0f, 200.0f, -1e30f, 1e30f, 2, 2, 2, 2};
  const Tensor h_tensor = device_.Upload(h, {1, 8});
  const Tensor dout = device_.Upload(std::vector<float>(4, 1.0f), {1, 4});
  const Tensor out = device_.New(DType::kF32, {1, 4});
  const Tensor dh = device_.New(DType::kF32, {1, 8});
  ASSERT_TRUE(
      train_ops::SwiGlu(Training(device_), h_tensor, out, device_.stream())
          .ok());
  ASSERT_TRUE(train_ops::SwiGluBackward(Training(device_), h_tensor, dout, dh,
                                        device_.stream())
                  .ok());
  EXPECT_EQ(device_.Floats(out), (std::vector<float>{0, 400, 0, 2e30f}));
  EXPECT_EQ(device_.Floats(dh),
            (std::vector<float>{0, 2, 0, 2, 0, 200, 0, 1e30f}));
}

TEST_P(TrainingRowOpsTest, RmsNormBackwardOfRandomShapesAddsToInput) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const int64_t num_rows = RandomRows(random, seed);
    const int64_t hidden = Size(random, seed, 600);
    shapes.Add(num_rows, {hidden});
    const std::vector<float> x = random.Floats(num_rows * hidden, 3.0f);
    const std::vector<float> weight = random.Floats(hidden);
    const std::vector<float> dy = random.Floats(num_rows * hidden);
    const std::vector<float> before = random.Floats(num_rows * hidden);
    Values expected =
        RmsNormBackward(ToValues(x), ToValues(weight), 1e-5, ToValues(dy));
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += before[i];
    CheckRows(num_rows, expected, ToleranceOf(DType::kF32),
              [&](Device& device, int64_t begin, int64_t end) {
                const int64_t rows = end - begin;
                const auto upload = [&](const std::vector<float>& all) {
                  return device.Upload(RowsOf(all, begin, end, hidden),
                                       {rows, hidden});
                };
                const Tensor dx = upload(before);
                EXPECT_TRUE(train_ops::RmsNormBackward(
                                Training(device), upload(x),
                                device.Upload(weight, {hidden}), 1e-5f,
                                upload(dy), dx, device.stream())
                                .ok());
                return device.Floats(dx);
              });
  });
}

TEST_P(TrainingRowOpsTest,
       RmsNormBackwardWeightOfRandomShapesSumsRowsInOneOrder) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const int64_t num_rows = RandomRows(random, seed) * (seed % 3 ? 1 : 5);
    const int64_t hidden = Size(random, seed, 600);
    shapes.Add(num_rows, {hidden});
    const bool accumulate = random.Integer(0, 1) == 1;
    const std::vector<float> x = random.Floats(num_rows * hidden, 3.0f);
    const std::vector<float> dy = random.Floats(num_rows * hidden);
    const std::vector<float> before = random.Floats(hidden);
    Values expected =
        RmsNormBackwardWeight(ToValues(x), 1e-5, ToValues(dy), hidden);
    std::vector<std::vector<float>> results;
    for (Device* device : {&device_, &single_}) {
      const Tensor dweight = accumulate ? device->Upload(before, {hidden})
                                        : device->New(DType::kF32, {hidden});
      ASSERT_TRUE(train_ops::RmsNormBackwardWeight(
                      Training(*device), device->Upload(x, {num_rows, hidden}),
                      1e-5f, device->Upload(dy, {num_rows, hidden}), accumulate,
                      dweight, device->stream())
                      .ok());
      results.push_back(device->Floats(dweight));
    }
    for (int64_t i = 0; accumulate && i < hidden; ++i) expected[i] += before[i];
    const Difference difference = Compare(ToValues(results[0]), expected);
    EXPECT_TRUE(difference.comparable);
    EXPECT_LE(difference.max_relative, 1e-5);  // up to 200 rows in a row
    EXPECT_EQ(FirstMismatch(results[0], results[1]), "");
  });
}

TEST_P(TrainingRowOpsTest, RouterBackwardOfRandomShapes) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const int64_t num_rows = RandomRows(random, seed);
    const int64_t num_experts = random.Integer(1, 70);
    const int64_t top_k = random.Integer(1, std::min<int64_t>(num_experts, 9));
    shapes.Add(num_rows, {num_experts, top_k});
    std::vector<int32_t> ids;
    for (int64_t t = 0; t < num_rows; ++t) {
      const std::vector<int32_t> order =
          random.Permutation(static_cast<int32_t>(num_experts));
      ids.insert(ids.end(), order.begin(), order.begin() + top_k);
    }
    const std::vector<float> weights = random.Floats(num_rows * top_k, 0.5f);
    const std::vector<float> dweights = random.Floats(num_rows * top_k);
    CheckRows(
        num_rows,
        RouterBackward(ids, ToValues(weights), ToValues(dweights), top_k,
                       num_experts),
        ToleranceOf(DType::kF32),
        [&](Device& device, int64_t begin, int64_t end) {
          const int64_t rows = end - begin;
          const Tensor dlogits = device.New(DType::kF32, {rows, num_experts});
          EXPECT_TRUE(
              train_ops::RouterBackward(
                  Training(device),
                  device.Upload(RowsOf(ids, begin, end, top_k), {rows, top_k}),
                  device.Upload(RowsOf(weights, begin, end, top_k),
                                {rows, top_k}),
                  device.Upload(RowsOf(dweights, begin, end, top_k),
                                {rows, top_k}),
                  dlogits, device.stream())
                  .ok());
          return device.Floats(dlogits);
        });
  });
}

TEST_P(TrainingRowOpsTest, RouterProbabilitiesOfRandomShapes) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const int64_t num_rows = RandomRows(random, seed);
    const int64_t num_experts = random.Integer(1, 70);
    shapes.Add(num_rows, {num_experts});
    const std::vector<float> logits =
        random.Floats(num_rows * num_experts, 4.0f);
    const Softmaxes softmax = RowSoftmax(ToValues(logits), num_experts);
    // Each row with its logarithm behind it.
    Values expected;
    for (int64_t t = 0; t < num_rows; ++t) {
      const auto row = softmax.probabilities.begin() + t * num_experts;
      expected.insert(expected.end(), row, row + num_experts);
      expected.push_back(softmax.log_sums[t]);
    }
    CheckRows(
        num_rows, expected, ToleranceOf(DType::kF32),
        [&](Device& device, int64_t begin, int64_t end) {
          const int64_t rows = end - begin;
          const Tensor p = device.New(DType::kF32, {rows, num_experts});
          const Tensor log_sums = device.New(DType::kF32, {rows});
          EXPECT_TRUE(train_ops::RouterProbabilities(
                          Training(device),
                          device.Upload(RowsOf(logits, begin, end, num_experts),
                                        {rows, num_experts}),
                          p, log_sums, device.stream())
                          .ok());
          std::vector<float> result;
          const std::vector<float> all = device.Floats(p);
          for (int64_t t = 0; t < rows; ++t) {
            const auto row = RowsOf(all, t, t + 1, num_experts);
            result.insert(result.end(), row.begin(), row.end());
            result.push_back(device.Floats(log_sums)[t]);
          }
          return result;
        });
  });
}

TEST_P(TrainingRowOpsTest, RouterLossBackwardOfRandomShapesAddsToGradient) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const int64_t num_rows = RandomRows(random, seed);
    const int64_t num_experts = random.Integer(1, 70);
    shapes.Add(num_rows, {num_experts});
    const float z_coef = random.Normal();
    const std::vector<float> logits =
        random.Floats(num_rows * num_experts, 4.0f);
    const std::vector<float> coef = random.Floats(num_experts);
    const std::vector<float> before = random.Floats(num_rows * num_experts);
    Values expected =
        RouterLossBackward(ToValues(logits), ToValues(coef), z_coef);
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += before[i];
    CheckRows(
        num_rows, expected, ToleranceOf(DType::kF32),
        [&](Device& device, int64_t begin, int64_t end) {
          const int64_t rows = end - begin;
          const Tensor dlogits = device.Upload(
              RowsOf(before, begin, end, num_experts), {rows, num_experts});
          EXPECT_TRUE(train_ops::RouterLossBackward(
                          Training(device),
                          device.Upload(RowsOf(logits, begin, end, num_experts),
                                        {rows, num_experts}),
                          device.Upload(coef, {num_experts}), z_coef, dlogits,
                          device.stream())
                          .ok());
          return device.Floats(dlogits);
        });
  });
}

TEST_P(TrainingRowOpsTest, SlotDotsOfRandomShapes) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const int64_t num_rows = RandomRows(random, seed);
    const int64_t hidden = Size(random, seed, 600);
    const int64_t top_k = random.Integer(1, 4);
    const int64_t num_sources = random.Integer(1, 30);
    shapes.Add(num_rows, {hidden, top_k, num_sources});
    const DType dtype = RandomDType(random);
    const std::vector<float> x = random.Floats(num_rows * hidden);
    const std::vector<float> rows =
        RoundTo(dtype, random.Floats(num_sources * hidden));
    std::vector<int32_t> slot_rows;
    for (int64_t i = 0; i < num_rows * top_k; ++i) {
      slot_rows.push_back(
          static_cast<int32_t>(random.Integer(0, num_sources - 1)));
    }
    CheckRows(
        num_rows,
        SlotDots(ToValues(x), ToValues(rows), slot_rows, top_k, hidden), 1e-5,
        [&](Device& device, int64_t begin, int64_t end) {
          const int64_t count = end - begin;
          const Tensor dots = device.New(DType::kF32, {count, top_k});
          EXPECT_TRUE(
              train_ops::SlotDots(
                  Training(device),
                  device.Upload(RowsOf(x, begin, end, hidden), {count, hidden}),
                  device.UploadAs(dtype, rows, {num_sources, hidden}),
                  device.Upload(RowsOf(slot_rows, begin, end, top_k),
                                {count, top_k}),
                  dots, device.stream())
                  .ok());
          return device.Floats(dots);
        });
  });
}

TEST_P(TrainingRowOpsTest, ScaleRowsOfRandomShapes) {
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    const int64_t num_rows = RandomRows(random, seed);
    const int64_t hidden = Size(random, seed, 600);
    shapes.Add(num_rows, {hidden});
    const DType in = RandomDType(random);
    const DType out = RandomDType(random);
    const std::vector<float> x = RoundTo(in, random.Floats(num_rows * hidden));
    const std::vector<float> scales = random.Floats(num_rows);
    std::vector<float> product;  // one rounding, and one to bf16: exact
    for (size_t i = 0; i < x.size(); ++i) {
      product.push_back(scales[i / hidden] * x[i]);
    }
    CheckRows(
        num_rows, ToValues(RoundTo(out, product)), 0.0,
        [&](Device& device, int64_t begin, int64_t end) {
          const int64_t rows = end - begin;
          const Tensor y = device.New(out, {rows, hidden});
          EXPECT_TRUE(train_ops::ScaleRows(
                          Training(device),
                          device.UploadAs(in, RowsOf(x, begin, end, hidden),
                                          {rows, hidden}),
                          device.Upload(RowsOf(scales, begin, end, 1), {rows}),
                          y, device.stream())
                          .ok());
          return device.Floats(y);
        });
  });
}

INSTANTIATE_TEST_SUITE_P(Backend, TrainingRowOpsTest,
                         testing::ValuesIn(BackendCases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace octet::test
