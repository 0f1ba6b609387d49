#include "kernels/cuda/router.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/kernels/cuda/gpu.h"
#include "tests/kernels/shape_count.h"
#include "tests/reference/reference_ops.h"

namespace octet::test {
namespace {

class RouterTest : public testing::Test {
 protected:
  struct Result {
    std::vector<int32_t> ids;
    std::vector<float> weights;
  };
  Result Run(absl::Span<const float> logits, int64_t num_rows, int64_t top_k) {
    const int64_t num_experts =
        num_rows == 0 ? 1 : static_cast<int64_t>(logits.size()) / num_rows;
    const Tensor ids = gpu_.New(DType::kI32, {num_rows, top_k});
    const Tensor weights = gpu_.New(DType::kF32, {num_rows, top_k});
    const Tensor input =
        gpu_.Upload(DType::kF32, logits, {num_rows, num_experts});
    Must(cuda::LaunchRouter(
        {input.as<float>(), num_rows, static_cast<int32_t>(num_experts),
         static_cast<int32_t>(top_k), ids.as<int32_t>(), weights.as<float>()},
        gpu_.stream()));
    return {gpu_.Download<int32_t>(ids), gpu_.Download<float>(weights)};
  }

  Gpu gpu_;
};

// E below, at and above a warp and a power of two; K beyond a warp; ties.
TEST_F(RouterTest, RandomShapesMatchTheReference) {
  const int64_t experts[] = {1, 3, 4, 7, 8, 16, 31, 32, 33, 60, 128, 200};
  ShapeCount shapes;
  for (uint64_t seed = 0; seed < 36; ++seed) {
    Random random(seed);
    const int64_t num_experts = experts[random.Integer(0, 11)];
    const int64_t top_k =
        seed % 4 == 0 ? num_experts
                      : random.Integer(1, std::min<int64_t>(num_experts, 8));
    const int64_t num_rows = seed == 0   ? 0
                             : seed == 1 ? 1
                                         : random.Integer(1, 40);
    shapes.Add(num_rows, {num_experts, top_k});
    SCOPED_TRACE(testing::Message()
                 << "T " << num_rows << " E " << num_experts << " K " << top_k);
    std::vector<float> logits = random.Floats(num_rows * num_experts, 4.0f);
    if (seed % 3 == 0) {
      for (float& logit : logits) logit = std::round(logit / 4.0f);
    }
    const Result result = Run(logits, num_rows, top_k);
    for (int64_t t = 0; t < num_rows; ++t) {
      const Values row(logits.begin() + t * num_experts,
                       logits.begin() + (t + 1) * num_experts);
      const Routing expected = Route(row, top_k);
      for (int64_t k = 0; k < top_k; ++k) {
        ASSERT_EQ(result.ids[t * top_k + k], expected.ids[k]) << t << " " << k;
        // Exp, a sum of K and a division in f32: units of 2^-24.
        ASSERT_NEAR(result.weights[t * top_k + k], expected.weights[k],
                    3e-7 + std::ldexp(static_cast<double>(top_k), -24));
      }
    }
  }
  shapes.Check();
}

TEST_F(RouterTest, TheLowerIdWinsAndZerosAreEqual) {
  const Result result = Run({-0.0f, 0.0f, -0.0f, -1.0f, 0.0f}, 1, 4);
  EXPECT_THAT(result.ids, testing::ElementsAre(0, 1, 2, 4));
  EXPECT_THAT(result.weights, testing::Each(0.25f));
}

TEST_F(RouterTest, IdsStayValidWhenLogitsAreNot) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const Result result =
      Run({nan, nan, nan, nan, 1, nan, 2, -inf, -nan, inf, 1, 2}, 3, 3);
  EXPECT_THAT(result.ids, testing::ElementsAre(0, 1, 2, 2, 0, 3, 1, 3, 2));
  EXPECT_TRUE(std::isnan(result.weights[0]));
  EXPECT_EQ(result.weights[5], 0.0f);  // exp(-inf)
  EXPECT_TRUE(std::isnan(result.weights[6]));
}

TEST_F(RouterTest, RowAloneEqualsRowInAnyBatch) {
  Random random(3);
  constexpr int64_t kRows = 19, kExperts = 40, kTopK = 3;
  const std::vector<float> logits = random.Floats(kRows * kExperts);
  const Result all = Run(logits, kRows, kTopK);
  for (int64_t t = 0; t < kRows; ++t) {
    const Result one = Run(
        absl::MakeConstSpan(logits).subspan(t * kExperts, kExperts), 1, kTopK);
    EXPECT_EQ(FirstMismatch(
                  one.weights,
                  absl::MakeConstSpan(all.weights).subspan(t * kTopK, kTopK)),
              "");
  }
}

}  // namespace
}  // namespace octet::test
