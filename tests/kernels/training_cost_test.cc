// The formulas against Mixtral 8x7B's numbers worked out by hand, and attention
// against a loop that counts pairs.
#include "kernels/training_cost.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"

namespace octet {
namespace {

constexpr DType kBF16 = DType::kBF16;
constexpr DType kF32 = DType::kF32;

TEST(TrainingCostMixtral, GradientOfAnExpertsWeights) {
  // 256 rows: x 256 x 4096 and dy 256 x 28672 bf16; dw 28672 x 4096 f32.
  const OpCost cost = GemmBackwardWeightCost(256, 28672, 4096, kBF16, false);
  EXPECT_EQ(cost.bytes, 2.0 * 256 * (4096 + 28672) + 469762048);
  EXPECT_EQ(cost.flops, 60129542144);  // 2 * 256 * 28672 * 4096
  EXPECT_EQ(cost.unit, kBF16);
  const OpCost added = GemmBackwardWeightCost(256, 28672, 4096, kBF16, true);
  EXPECT_EQ(added.bytes - cost.bytes, 469762048);
}

TEST(TrainingCostMixtral, RowOperationsOfOneToken) {
  EXPECT_EQ(SwiGluCost(1, 14336, kF32, kBF16).bytes, 14336 * 10);
  EXPECT_EQ(SwiGluBackwardCost(1, 14336, kF32, kBF16, kBF16).bytes,
            14336 * (8 + 2 + 4));
  EXPECT_EQ(RmsNormBackwardCost(1, 4096).bytes, 4096 * 20);
  EXPECT_EQ(RmsNormBackwardWeightCost(1, 4096).bytes, 4096 * 12);
  const RopeParams rope = {.num_heads = 32, .num_kv_heads = 8, .head_dim = 128};
  EXPECT_EQ(RopeBackwardCost(1, rope, kBF16).bytes, 6144 * 6 + 4);
  EXPECT_EQ(RopeBackwardCost(1, rope, kBF16).flops, 3 * 5120);
  EXPECT_EQ(RouterBackwardCost(1, 8, 2).bytes, 24 + 32);
  EXPECT_EQ(RouterProbabilitiesCost(1, 8).bytes, 64 + 4);
  EXPECT_EQ(RouterLossBackwardCost(1, 8).bytes, 96 + 32);
  EXPECT_EQ(SlotDotsCost(1, 2, 4096, kBF16).bytes, 16384 + 2 * (8192 + 8));
  EXPECT_EQ(SlotDotsCost(1, 2, 4096, kBF16).flops, 16384);
  EXPECT_EQ(ScaleRowsCost(2, 4096, kBF16, kF32).bytes, 2 * (4096 * 6 + 4));
  EXPECT_EQ(CrossEntropyCost(1, 32000, kBF16).bytes, 32000 * 6 + 12);
  EXPECT_EQ(EmbeddingBackwardCost(1, 4096).bytes, 49152 + 4);
  EXPECT_EQ(DropoutCost(1, 4096, kBF16, kBF16).bytes, 16384 + 8);
  EXPECT_EQ(CastCost(10, kF32, kBF16).bytes, 60);
  EXPECT_EQ(AddScaledCost(10).bytes, 120);
  EXPECT_EQ(SumOfSquaresCost(10).bytes, 40);
  EXPECT_EQ(AdamWCost(10).bytes, 280);
  EXPECT_EQ(RepackCost(10, kBF16).bytes, 60);
}

TEST(TrainingCost, AttentionCountsPairsAndEveryRowOnce) {
  const std::vector<int64_t> lengths = {5, 0, 9};
  for (const int window : {0, 4}) {
    const AttentionCostShape shape = {.num_heads = 4,
                                      .num_kv_heads = 2,
                                      .head_dim = 8,
                                      .sliding_window = window,
                                      .cache = kBF16,
                                      .out = kF32};
    double pairs = 0, rows = 0;
    for (const int64_t length : lengths) {
      for (int64_t p = 0; p < length; ++p) {
        pairs += window == 0 ? p + 1 : std::min<int64_t>(p + 1, window);
        ++rows;
      }
    }
    const OpCost cost = AttentionBackwardCost(lengths, shape);
    EXPECT_EQ(cost.flops, pairs * 5 * 2 * 4 * 8);
    // q, dq, out, dout f32; k, v bf16 and their gradients f32.
    EXPECT_EQ(cost.bytes, rows * (4 * 8 * 16 + 2 * 8 * 12));
  }
}

TEST(TrainingCost, NoRowsCostNothing) {
  for (const OpCost& cost :
       {SwiGluCost(0, 8, kF32, kF32), RmsNormBackwardCost(0, 8),
        SwiGluBackwardCost(0, 8, kF32, kF32, kF32),
        AttentionBackwardCost({}, {}),
        RopeBackwardCost(0, {.num_heads = 1, .head_dim = 2}, kF32),
        RouterBackwardCost(0, 8, 2), RouterProbabilitiesCost(0, 8),
        RouterLossBackwardCost(0, 8), SlotDotsCost(0, 2, 8, kF32),
        ScaleRowsCost(0, 8, kF32, kF32), CrossEntropyCost(0, 8, kF32),
        EmbeddingBackwardCost(0, 8), CastCost(0, kF32, kF32), AddScaledCost(0),
        DropoutCost(0, 8, kF32, kF32), SumOfSquaresCost(0), AdamWCost(0),
        RepackCost(0, kF32)}) {
    EXPECT_EQ(cost.bytes, 0);
    EXPECT_EQ(cost.flops, 0);
  }
}

}  // namespace
}  // namespace octet
