// Training operations without rows: fine everywhere, and a sum of nothing is
// zero.
#include <cstdint>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/training_ops.h"
#include "tests/kernels/ops_cases.h"

namespace octet::test {
namespace {

namespace ops = train_ops;

class TrainingOpsEmptyTest : public OpsTest {
 protected:
  TrainingBackend& t_ = *b_.training();
};

TEST_F(TrainingOpsEmptyTest, NoRowsAreFineEverywhere) {
  const PackedMatrix* w = Matrix(DType::kF32, 3, 4);
  const std::vector<const PackedMatrix*> one = {w};
  const std::vector<int64_t> offsets = {0, 0};
  const Tensor x = F32({0, 4});
  const Tensor y = F32({0, 3});
  const Tensor rows = F32({0});
  const Tensor vector = F32({4});
  std::vector<double> sums = {1.0};
  EXPECT_TRUE(ops::GroupedGemmAccumulate(t_, x, one, offsets, y, s_).ok());
  EXPECT_TRUE(ops::GroupedGemmAccumulate(t_, x, {}, {0}, y, s_).ok());
  EXPECT_TRUE(ops::GemmBackwardInput(t_, y, *w, true, x, s_).ok());
  EXPECT_TRUE(
      ops::GroupedGemmBackwardInput(t_, y, one, offsets, true, x, s_).ok());
  EXPECT_TRUE(ops::GroupedGemmBackwardInput(t_, y, {}, {0}, true, x, s_).ok());
  EXPECT_TRUE(ops::SwiGlu(t_, x, F32({0, 2}), s_).ok());
  EXPECT_TRUE(ops::SwiGluBackward(t_, x, F32({0, 2}), x, s_).ok());
  EXPECT_TRUE(ops::RmsNormBackward(t_, x, vector, 0, x, x, s_).ok());
  const Tensor q = F32({0, 8});
  EXPECT_TRUE(ops::AttentionBackward(
                  t_, q, NewCache(device_, {DType::kF32, 1, 4, 8, 2}), {}, 0, q,
                  q, q, q, q, s_)
                  .ok());
  EXPECT_TRUE(ops::RopeBackward(t_, q, q, q, I32({0}), {1e4f, 1, 1, 8},
                                F32({0, 24}), s_)
                  .ok());
  EXPECT_TRUE(ops::RouterBackward(t_, I32({0, 3}), y, y, x, s_).ok());
  EXPECT_TRUE(ops::RouterProbabilities(t_, x, x, rows, s_).ok());
  EXPECT_TRUE(ops::RouterLossBackward(t_, x, vector, 0, x, s_).ok());
  EXPECT_TRUE(ops::SlotDots(t_, x, x, I32({0, 3}), y, s_).ok());
  EXPECT_TRUE(ops::ScaleRows(t_, x, rows, x, s_).ok());
  EXPECT_TRUE(
      ops::CrossEntropy(t_, x, I32({0}), rows, rows, Tensor(), s_).ok());
  EXPECT_TRUE(ops::EmbeddingBackward(t_, x, I32({0}), F32({3, 4}), s_).ok());
  EXPECT_TRUE(ops::Cast(t_, x, x, s_).ok());
  EXPECT_TRUE(ops::AddScaled(t_, x, 1, x, s_).ok());
  EXPECT_TRUE(ops::CopyBlock(t_, x, {0, 1}, x, {0, 0}, 0, 3, true, s_).ok());
  EXPECT_TRUE(ops::Dropout(t_, x, I64({0}), 1, 0.5f, true, x, s_).ok());
  EXPECT_TRUE(ops::SumOfSquares(t_, x, &sums, s_).ok());
  EXPECT_TRUE(sums.empty());
  EXPECT_TRUE(ops::AdamW(t_, {}, rows, rows, rows, rows, s_).ok());
  auto matrix = *b_.NewPackedMatrix(DType::kF32, 3, 4);
  EXPECT_TRUE(ops::Repack(t_, *matrix, 3, x, s_).ok());
}

// Gradients of weights are sums: of nothing, zero.
TEST_F(TrainingOpsEmptyTest, NoRowsGiveZeroGradientsOfWeights) {
  const std::vector<float> before(12, 7.0f);
  for (const bool accumulate : {true, false}) {
    const std::vector<float> expected(12, accumulate ? 7.0f : 0.0f);
    const Tensor dw = device_.Upload(before, {3, 4});
    EXPECT_TRUE(ops::GemmBackwardWeight(t_, F32({0, 4}), F32({0, 3}), 1,
                                        accumulate, dw, s_)
                    .ok());
    EXPECT_EQ(device_.Floats(dw), expected);
    const Tensor dweight = device_.Upload(before, {12});
    EXPECT_TRUE(ops::RmsNormBackwardWeight(t_, F32({0, 12}), 0, F32({0, 12}),
                                           accumulate, dweight, s_)
                    .ok());
    EXPECT_EQ(device_.Floats(dweight), expected);
  }
}

}  // namespace
}  // namespace octet::test
