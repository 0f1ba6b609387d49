// Gradients of operations that have a forward pass in the backend, against
// central differences of that forward pass.
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "kernels/training_ops.h"
#include "tests/kernels/device.h"

namespace octet::test {
namespace {

class TrainingGradientsTest : public testing::TestWithParam<BackendCase> {
 protected:
  TrainingBackend& training() { return *device_.backend().training(); }
  Stream& stream() { return device_.stream(); }

  // sum of out * weights, in double.
  double Loss(ConstTensor out, const std::vector<float>& weights) {
    const std::vector<float> values = device_.Floats(out);
    double loss = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      loss += static_cast<double>(values[i]) * weights[i];
    }
    return loss;
  }

  // gradient[i] within `tolerance` of the central difference of loss at x.
  static void ExpectGradient(
      const std::vector<float>& gradient, std::vector<float> x,
      double tolerance,
      const std::function<double(const std::vector<float>&)>& loss) {
    ASSERT_EQ(gradient.size(), x.size());
    constexpr float kStep = 1.0f / 64;
    for (size_t i = 0; i < x.size(); ++i) {
      const float at = x[i];
      x[i] = at + kStep;
      const double above = loss(x);
      x[i] = at - kStep;
      const double below = loss(x);
      x[i] = at;
      EXPECT_NEAR(gradient[i], (above - below) / (2 * kStep), tolerance) << i;
    }
  }

  Device device_{GetParam(), 2};
};

TEST_P(TrainingGradientsTest, SwiGlu) {
  Random random(1);
  const std::vector<float> h = random.Floats(3 * 10);
  const std::vector<float> dout = random.Floats(3 * 5);
  const Tensor dh = device_.New(DType::kF32, {3, 10});
  ASSERT_TRUE(train_ops::SwiGluBackward(training(), device_.Upload(h, {3, 10}),
                                        device_.Upload(dout, {3, 5}), dh,
                                        stream())
                  .ok());
  ExpectGradient(
      device_.Floats(dh), h, 1e-3, [&](const std::vector<float>& at) {
        const Tensor out = device_.New(DType::kF32, {3, 5});
        EXPECT_TRUE(train_ops::SwiGlu(training(), device_.Upload(at, {3, 10}),
                                      out, stream())
                        .ok());
        return Loss(out, dout);
      });
}

TEST_P(TrainingGradientsTest, RmsNorm) {
  Random random(2);
  const std::vector<float> x = random.Floats(2 * 7);
  const std::vector<float> weight = random.Floats(7);
  const std::vector<float> dy = random.Floats(2 * 7);
  const Tensor dx = device_.Upload(std::vector<float>(14), {2, 7});
  const Tensor dweight = device_.New(DType::kF32, {7});
  const Tensor x_tensor = device_.Upload(x, {2, 7});
  const Tensor weight_tensor = device_.Upload(weight, {7});
  const Tensor dy_tensor = device_.Upload(dy, {2, 7});
  ASSERT_TRUE(train_ops::RmsNormBackward(training(), x_tensor, weight_tensor,
                                         1e-5f, dy_tensor, dx, stream())
                  .ok());
  ASSERT_TRUE(train_ops::RmsNormBackwardWeight(training(), x_tensor, 1e-5f,
                                               dy_tensor, false, dweight,
                                               stream())
                  .ok());
  const Tensor out = device_.New(DType::kF32, {2, 7});
  const auto loss = [&](const std::vector<float>& at_x,
                        const std::vector<float>& at_weight) {
    EXPECT_TRUE(ops::RmsNorm(device_.backend(), device_.Upload(at_x, {2, 7}),
                             device_.Upload(at_weight, {7}), 1e-5f, out,
                             stream())
                    .ok());
    return Loss(out, dy);
  };
  ExpectGradient(device_.Floats(dx), x, 1e-3,
                 [&](const auto& at) { return loss(at, weight); });
  ExpectGradient(device_.Floats(dweight), weight, 1e-3,
                 [&](const auto& at) { return loss(x, at); });
}

// A sequence of 9 tokens, two heads on one key/value head.
TEST_P(TrainingGradientsTest, Attention) {
  constexpr int64_t kLength = 9;
  constexpr int64_t kDim = 4;
  Random random(3);
  const std::vector<float> q = random.Floats(kLength * 2 * kDim);
  const std::vector<float> keys = random.Floats(kLength * kDim);
  const std::vector<float> values = random.Floats(kLength * kDim);
  const std::vector<float> dout = random.Floats(kLength * 2 * kDim);
  const std::vector<int32_t> table = {2, 0, 1};
  const KvCacheView cache = NewCache(device_, {DType::kF32, 1, 4, kDim, 3});
  const std::vector<AttentionSequence> sequences = {{0, kLength, 0, table}};
  for (const int window : {0, 5}) {
    const Tensor out = device_.New(DType::kF32, {kLength, 2 * kDim});
    const auto forward = [&](const auto& at_q, const auto& at_keys,
                             const auto& at_values) {
      FillCache(device_, cache, table, at_keys, at_values);
      EXPECT_TRUE(ops::PagedAttention(device_.backend(),
                                      device_.Upload(at_q, {kLength, 2 * kDim}),
                                      cache, sequences, window, out, stream())
                      .ok());
      return Loss(out, dout);
    };
    forward(q, keys, values);
    const Tensor dq = device_.New(DType::kF32, {kLength, 2 * kDim});
    const Tensor dk = device_.New(DType::kF32, {kLength, kDim});
    const Tensor dv = device_.New(DType::kF32, {kLength, kDim});
    ASSERT_TRUE(train_ops::AttentionBackward(
                    training(), device_.Upload(q, {kLength, 2 * kDim}), cache,
                    sequences, window, out,
                    device_.Upload(dout, {kLength, 2 * kDim}), dq, dk, dv,
                    stream())
                    .ok());
    ExpectGradient(device_.Floats(dq), q, 2e-3,
                   [&](const auto& at) { return forward(at, keys, values); });
    ExpectGradient(device_.Floats(dk), keys, 2e-3,
                   [&](const auto& at) { return forward(q, at, values); });
    ExpectGradient(device_.Floats(dv), values, 2e-3,
                   [&](const auto& at) { return forward(q, keys, at); });
  }
}

TEST_P(TrainingGradientsTest, CrossEntropy) {
  Random random(4);
  const std::vector<float> logits = random.Floats(3 * 6);
  const std::vector<float> scales = {1.0f, 0.5f, 2.0f};
  const std::vector<int32_t> targets = {5, -1, 0};
  const Tensor losses = device_.New(DType::kF32, {3});
  const auto run = [&](const std::vector<float>& at, Tensor dlogits) {
    EXPECT_TRUE(train_ops::CrossEntropy(training(), device_.Upload(at, {3, 6}),
                                        device_.Upload(targets, {3}),
                                        device_.Upload(scales, {3}), losses,
                                        dlogits, stream())
                    .ok());
    return Loss(losses, scales);
  };
  const Tensor dlogits = device_.New(DType::kF32, {3, 6});
  run(logits, dlogits);
  ExpectGradient(device_.Floats(dlogits), logits, 1e-3,
                 [&](const auto& at) { return run(at, Tensor()); });
}

// y = x W^T: dx and dw follow from the loss sum(y dy).
TEST_P(TrainingGradientsTest, Products) {
  constexpr int64_t kT = 3, kN = 5, kK = 7;
  Random random(5);
  const std::vector<float> x = random.Floats(kT * kK);
  const std::vector<float> w = random.Floats(kN * kK);
  const std::vector<float> dy = random.Floats(kT * kN);
  const auto matrix = *device_.backend().NewPackedMatrix(DType::kF32, kN, kK);
  const Tensor x_tensor = device_.Upload(x, {kT, kK});
  const Tensor dy_tensor = device_.Upload(dy, {kT, kN});
  const Tensor y = device_.New(DType::kF32, {kT, kN});
  const auto forward = [&](const auto& at_x, const auto& at_w) {
    EXPECT_TRUE(train_ops::Repack(training(), *matrix, 0,
                                  device_.Upload(at_w, {kN, kK}), stream())
                    .ok());
    EXPECT_TRUE(ops::Gemm(device_.backend(), device_.Upload(at_x, {kT, kK}),
                          *matrix, false, y, stream())
                    .ok());
    return Loss(y, dy);
  };
  forward(x, w);
  const Tensor dx = device_.New(DType::kF32, {kT, kK});
  const Tensor dw = device_.New(DType::kF32, {kN, kK});
  ASSERT_TRUE(train_ops::GemmBackwardInput(training(), dy_tensor, *matrix,
                                           false, dx, stream())
                  .ok());
  ASSERT_TRUE(train_ops::GemmBackwardWeight(training(), x_tensor, dy_tensor, 1,
                                            false, dw, stream())
                  .ok());
  ExpectGradient(device_.Floats(dx), x, 1e-3,
                 [&](const auto& at) { return forward(at, w); });
  ExpectGradient(device_.Floats(dw), w, 1e-3,
                 [&](const auto& at) { return forward(x, at); });
}

INSTANTIATE_TEST_SUITE_P(Backend, TrainingGradientsTest,
                         testing::ValuesIn(BackendCases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace octet::test
