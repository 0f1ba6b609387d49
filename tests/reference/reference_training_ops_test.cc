// The gradients of the reference against central differences of its forward
// formulas, and AdamW against a step worked out by hand.
#include "tests/reference/reference_training_ops.h"

#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "gtest/gtest.h"

namespace octet::test {
namespace {

Values RandomValues(Random& random, size_t count) {
  return ToValues(random.Floats(count));
}

double Dot(const Values& a, const Values& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// Steps of 1e-5 in double: errors of the difference about 1e-10.
void ExpectGradient(const Values& gradient, Values x,
                    const std::function<double(const Values&)>& loss) {
  ASSERT_EQ(gradient.size(), x.size());
  constexpr double kStep = 1e-5;
  for (size_t i = 0; i < x.size(); ++i) {
    const double at = x[i];
    x[i] = at + kStep;
    const double above = loss(x);
    x[i] = at - kStep;
    const double below = loss(x);
    x[i] = at;
    EXPECT_NEAR(gradient[i], (above - below) / (2 * kStep), 1e-8) << i;
  }
}

TEST(ReferenceTrainingOpsTest, Products) {
  Random random(1);
  const Values x = RandomValues(random, 4 * 3);
  const Values w = RandomValues(random, 5 * 3);
  const Values dy = RandomValues(random, 4 * 5);
  ExpectGradient(MatMulBackwardInput(dy, w, 3), x,
                 [&](const Values& at) { return Dot(MatMul(at, w, 3), dy); });
  ExpectGradient(MatMulBackwardWeight(x, dy, 3, 5), w,
                 [&](const Values& at) { return Dot(MatMul(x, at, 3), dy); });
}

TEST(ReferenceTrainingOpsTest, GatedSilu) {
  Random random(2);
  const Values h = RandomValues(random, 3 * 10);
  const Values dout = RandomValues(random, 3 * 5);
  ExpectGradient(GatedSiluBackward(h, dout, 5), h,
                 [&](const Values& at) { return Dot(GatedSilu(at, 5), dout); });
}

TEST(ReferenceTrainingOpsTest, RmsNorm) {
  Random random(3);
  const Values x = RandomValues(random, 3 * 7);
  const Values weight = RandomValues(random, 7);
  const Values dy = RandomValues(random, 3 * 7);
  ExpectGradient(
      RmsNormBackward(x, weight, 1e-2, dy), x,
      [&](const Values& at) { return Dot(RmsNorm(at, weight, 1e-2), dy); });
  ExpectGradient(
      RmsNormBackwardWeight(x, 1e-2, dy, 7), weight,
      [&](const Values& at) { return Dot(RmsNorm(x, at, 1e-2), dy); });
}

TEST(ReferenceTrainingOpsTest, Attention) {
  constexpr int64_t kLength = 7;
  for (const int64_t window : {0, 3}) {
    const AttentionShape shape{4, 2, 6, window};
    Random random(4);
    const Values q = RandomValues(random, kLength * 4 * 6);
    const Values keys = RandomValues(random, kLength * 2 * 6);
    const Values values = RandomValues(random, kLength * 2 * 6);
    const Values dout = RandomValues(random, kLength * 4 * 6);
    const AttentionGradient gradient = AttentionBackward(
        q, keys, values, Attention(q, keys, values, shape, 0), dout, shape);
    ExpectGradient(gradient.dq, q, [&](const Values& at) {
      return Dot(Attention(at, keys, values, shape, 0), dout);
    });
    ExpectGradient(gradient.dk, keys, [&](const Values& at) {
      return Dot(Attention(q, at, values, shape, 0), dout);
    });
    ExpectGradient(gradient.dv, values, [&](const Values& at) {
      return Dot(Attention(q, keys, at, shape, 0), dout);
    });
  }
}

TEST(ReferenceTrainingOpsTest, Rotation) {
  Random random(5);
  const Values x = RandomValues(random, 8);
  Values dx = RandomValues(random, 8);
  const Values dy = dx;
  RotateBack(absl::MakeSpan(dx), 1234, 1e4);
  ExpectGradient(dx, x, [&](Values at) {
    Rotate(absl::MakeSpan(at), 1234, 1e4);
    return Dot(at, dy);
  });
}

TEST(ReferenceTrainingOpsTest, Router) {
  Random random(6);
  const Values logits = RandomValues(random, 3 * 5);
  const Values dweights = RandomValues(random, 3 * 2);
  const auto route = [](const Values& all, std::vector<int32_t>* ids) {
    Values weights;
    for (int64_t t = 0; t < 3; ++t) {
      const Routing routing =
          Route(absl::MakeConstSpan(all).subspan(t * 5, 5), 2);
      weights.insert(weights.end(), routing.weights.begin(),
                     routing.weights.end());
      ids->insert(ids->end(), routing.ids.begin(), routing.ids.end());
    }
    return weights;
  };
  std::vector<int32_t> ids;
  const Values weights = route(logits, &ids);
  ExpectGradient(RouterBackward(ids, weights, dweights, 2, 5), logits,
                 [&](const Values& at) {
                   std::vector<int32_t> unused;
                   return Dot(route(at, &unused), dweights);
                 });
  const Values coef = RandomValues(random, 5);
  ExpectGradient(RouterLossBackward(logits, coef, 0.3), logits,
                 [&](const Values& at) { return RouterLoss(at, coef, 0.3); });
}

TEST(ReferenceTrainingOpsTest, SlotDots) {
  Random random(7);
  const Values x = RandomValues(random, 3 * 4);
  const Values rows = RandomValues(random, 5 * 4);
  const std::vector<int32_t> slot_rows = {4, 0, 1, 1, 2, 3};
  const Values weights = RandomValues(random, 6);
  ExpectGradient(SlotDots(x, rows, slot_rows, 2, 4), weights,
                 [&](const Values& at) {
                   return Dot(Combine(rows, slot_rows, at, 2, 4), x);
                 });
}

TEST(ReferenceTrainingOpsTest, CrossEntropy) {
  Random random(8);
  const Values logits = RandomValues(random, 3 * 6);
  const std::vector<int32_t> targets = {5, -1, 0};
  const Values scales = {1.0, 0.5, 2.0};
  ExpectGradient(CrossEntropy(logits, targets, scales).dlogits, logits,
                 [&](const Values& at) {
                   return Dot(CrossEntropy(at, targets, scales).losses, scales);
                 });
}

TEST(ReferenceTrainingOpsTest, EmbeddingBackwardAddsRowsOfOneId) {
  Values dtable = {1, 2, 3, 4, 5, 6};
  EmbeddingBackward({10, 20, 30, 40, 50, 60}, {2, 0, 2}, dtable);
  EXPECT_EQ(dtable, (Values{31, 42, 3, 4, 65, 86}));
}

TEST(ReferenceTrainingOpsTest, DropoutDropsTheShareItShould) {
  int64_t dropped = 0;
  for (int64_t row = 0; row < 100; ++row) {
    for (int64_t column = 0; column < 100; ++column) {
      const double factor = DropoutFactor(9, row, column, 0.25f);
      EXPECT_TRUE(factor == 0.0 || factor == 1.0 / 0.75);
      dropped += factor == 0.0;
    }
  }
  EXPECT_NEAR(dropped, 2500, 4 * std::sqrt(10000 * 0.25 * 0.75));
}

TEST(ReferenceTrainingOpsTest, FirstStepOfAdamWIsTheLearningRate) {
  // m / (1 - beta1) = g and v / (1 - beta2) = g^2 at step 1, so that the step
  // is lr g / (|g| + eps), after the decay.
  AdamWParams params;
  params.learning_rate = 0.5f;
  params.weight_decay = 0.25f;
  params.eps = 1.0f;
  params.grad_scale = 2.0f;
  Values weight = {8.0}, m = {0.0}, v = {0.0};
  AdamW(params, {1.5}, weight, m, v);
  EXPECT_NEAR(weight[0], 8.0 - 0.5 * 0.25 * 8.0 - 0.5 * 3.0 / 4.0, 1e-12);
  EXPECT_NEAR(m[0], 0.1 * 3.0, 1e-6);  // beta1 is 0.9f
  EXPECT_NEAR(v[0], 0.001 * 9.0, 1e-6);
}

}  // namespace
}  // namespace octet::test
