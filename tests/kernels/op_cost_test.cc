// The formulas against Mixtral 8x7B's numbers worked out by hand, and against
// loops that count every byte and flop of small cases.
#include "kernels/op_cost.h"

#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace octet {
namespace {

constexpr DType kBF16 = DType::kBF16;
constexpr DType kF32 = DType::kF32;

// ---- Mixtral 8x7B, by hand

TEST(OpCostMixtral, ExpertsOfOneTokenAreTwoExpertsWeights) {
  // Two of eight experts: 2 * (2 * 14336 * 4096) bf16 weights = 469762048
  // bytes; each row of x 8192 bytes, each row of h 28672 bytes.
  const std::vector<int64_t> rows = {1, 1, 0, 0, 0, 0, 0, 0};
  const OpCost up = GroupedGemmSwiGluCost(rows, 14336, 4096, kBF16);
  EXPECT_EQ(up.bytes, 469762048 + 2 * (8192 + 28672));
  // 2 * 2 * 28672 * 4096 and five for each of 2 * 14336 outputs.
  EXPECT_EQ(up.flops, 469762048 + 143360);
  EXPECT_EQ(up.unit, kBF16);
  const OpCost down = GroupedGemmCost(rows, 4096, 14336, kBF16, kBF16);
  EXPECT_EQ(down.bytes, 234881024 + 2 * (28672 + 8192));
  EXPECT_EQ(down.flops, 234881024);
}

TEST(OpCostMixtral, AttentionProjections) {
  // qkv: n = (32 + 16) * 128 = 6144: 50331648 bytes of weights.
  const OpCost qkv = GemmCost(64, 6144, 4096, kBF16, kF32, false);
  EXPECT_EQ(qkv.bytes, 50331648 + 64 * 8192 + 64 * 6144 * 4);
  EXPECT_EQ(qkv.flops, 3221225472);  // 2 * 64 * 6144 * 4096
  // The output projection adds to the residual: read and written.
  const OpCost o = GemmCost(1, 4096, 4096, kBF16, kF32, true);
  EXPECT_EQ(o.bytes, 33554432 + 8192 + 2 * 16384);
}

TEST(OpCostMixtral, DecodeAttentionReadsTheCache) {
  // 1024 tokens before this one: 1025 keys of 8 heads of 128, keys and values
  // in bf16: 1025 * 4096 bytes. q 16384 bytes, out 8192.
  const AttentionCostShape shape = {
      .num_heads = 32, .num_kv_heads = 8, .head_dim = 128};
  const std::vector<AttentionRange> one = {{1, 1024}};
  const OpCost cost = PagedAttentionCost(one, shape);
  EXPECT_EQ(cost.bytes, 1025 * 4096 + 16384 + 8192);
  EXPECT_EQ(cost.flops, 16793600);  // 4 * 4096 * 1025
  // A prompt of 512: 512 * 513 / 2 = 131328 pairs.
  const std::vector<AttentionRange> prompt = {{512, 0}};
  EXPECT_EQ(PagedAttentionCost(prompt, shape).flops, 16384.0 * 131328);
  EXPECT_EQ(PagedAttentionCost(prompt, shape).bytes, 512.0 * (4096 + 24576));
}

TEST(OpCostMixtral, RowOperationsOfOneToken) {
  EXPECT_EQ(EmbeddingCost(1, 4096, kBF16).bytes, 8192 + 16384 + 4);
  EXPECT_EQ(RmsNormCost(1, 4096, kBF16).bytes, 16384 + 16384 + 8192);
  EXPECT_EQ(RmsNormCost(1, 4096, kBF16).flops, 16384);
  EXPECT_EQ(RouterCost(1, 8, 2).bytes, 32 + 16);
  EXPECT_EQ(RouterCost(1, 8, 2).flops, 32 + 16 + 4);
  EXPECT_EQ(GatherRowsCost(1, 2, 4096, kBF16).bytes, 3 * 8192 + 8);
  EXPECT_EQ(CombineRowsCost(1, 2, 4096, kBF16).bytes, 2 * 8192 + 32768 + 16);
  EXPECT_EQ(CombineRowsCost(1, 2, 4096, kBF16).flops, 16384);
  EXPECT_EQ(SampleCost(1, 32000).bytes, 128000);
  EXPECT_EQ(ScoreTokensCost(2, 32000).bytes, 256000);
  // qkv row 24576 bytes, position and slot 12, q 16384, k and v 4096.
  const OpCost rope = RopeAndCacheCost(
      1, {.num_heads = 32, .num_kv_heads = 8, .head_dim = 128}, kBF16);
  EXPECT_EQ(rope.bytes, 24576 + 12 + 16384 + 4096);
  EXPECT_EQ(rope.flops, 3 * 40 * 128);
}

TEST(OpCostMixtral, LayerWeightsAddUp) {
  // All eight experts' w13 and w2: 8 * 3 * 4096 * 14336 bf16 weights, 2.82 GB,
  // which at 3.35 TB/s is 841 us.
  const std::vector<int64_t> rows(8, 1);
  const double bytes = GroupedGemmSwiGluCost(rows, 14336, 4096, kBF16).bytes +
                       GroupedGemmCost(rows, 4096, 14336, kBF16, kBF16).bytes;
  const double weights = 2818572288;
  EXPECT_EQ(bytes, weights + 8 * (2 * 8192 + 2 * 28672));
  EXPECT_NEAR(FloorSeconds({.bytes = weights}, {.bytes_per_second = 3.35e12,
                                                .bf16_flops_per_second = 1,
                                                .f32_flops_per_second = 1}),
              841.4e-6, 0.1e-6);
}

// ---- small cases, counted

TEST(OpCostCounted, Attention) {
  const AttentionCostShape shapes[] = {
      {.num_heads = 6, .num_kv_heads = 2, .head_dim = 4},
      {.num_heads = 4, .num_kv_heads = 4, .head_dim = 2, .sliding_window = 3},
      {.num_heads = 3,
       .num_kv_heads = 1,
       .head_dim = 6,
       .sliding_window = 1,
       .cache = kF32,
       .out = kF32},
      {.num_heads = 2, .num_kv_heads = 1, .head_dim = 2, .sliding_window = 50}};
  for (const AttentionCostShape& shape : shapes) {
    for (int64_t rows = 0; rows < 7; ++rows) {
      for (int64_t first = 0; first < 7; ++first) {
        double bytes = 0, flops = 0;
        std::set<int64_t> keys;
        for (int64_t p = first; p < first + rows; ++p) {
          for (int64_t key = 0; key <= p; ++key) {
            if (shape.sliding_window && key <= p - shape.sliding_window) {
              continue;
            }
            keys.insert(key);
            flops += shape.num_heads * shape.head_dim * 4.0;
          }
          bytes += shape.num_heads * shape.head_dim *
                   (4.0 + static_cast<double>(SizeOf(shape.out)));
        }
        bytes += 2.0 * static_cast<double>(keys.size()) * shape.num_kv_heads *
                 shape.head_dim * static_cast<double>(SizeOf(shape.cache));
        const std::vector<AttentionRange> twice(2, {rows, first});
        const OpCost cost = PagedAttentionCost(twice, shape);
        EXPECT_EQ(cost.bytes, 2 * bytes) << rows << " from " << first;
        EXPECT_EQ(cost.flops, 2 * flops) << rows << " from " << first;
        EXPECT_EQ(cost.unit, shape.cache);
      }
    }
  }
}

TEST(OpCostCounted, Products) {
  // Counted element by element; a group without rows reads no weights.
  const std::vector<int64_t> groups = {3, 0, 1, 7};
  const int64_t n = 6, k = 5;
  double bytes = 0, flops = 0, swiglu_bytes = 0, swiglu_flops = 0;
  for (int64_t rows : groups) {
    for (int64_t i = 0; rows > 0 && i < n * k; ++i) bytes += 2;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < k; ++i) bytes += 2;
      for (int64_t out = 0; out < n; ++out) {
        for (int64_t i = 0; i < k; ++i) flops += 2;
        bytes += 4;
        swiglu_bytes -= 4;
      }
      for (int64_t out = 0; out < n / 2; ++out) {
        swiglu_bytes += 2;
        swiglu_flops += 5;
      }
    }
  }
  const OpCost plain = GroupedGemmCost(groups, n, k, kBF16, kF32);
  EXPECT_EQ(plain.bytes, bytes);
  EXPECT_EQ(plain.flops, flops);
  const OpCost swiglu = GroupedGemmSwiGluCost(groups, n / 2, k, kBF16);
  EXPECT_EQ(swiglu.bytes, bytes + swiglu_bytes);
  EXPECT_EQ(swiglu.flops, flops + swiglu_flops);
}

TEST(OpCost, NoRowsCostNothing) {
  const std::vector<int64_t> none(8, 0);
  for (const OpCost& cost :
       {EmbeddingCost(0, 64, kBF16), RmsNormCost(0, 64, kF32),
        GemmCost(0, 64, 64, kBF16, kF32, true),
        GroupedGemmCost(none, 64, 64, kF32, kF32),
        GroupedGemmSwiGluCost(none, 64, 64, kF32),
        PagedAttentionCost({}, {.num_heads = 1}), RouterCost(0, 8, 2),
        GatherRowsCost(0, 0, 64, kF32), CombineRowsCost(0, 2, 64, kF32),
        RopeAndCacheCost(0, {.num_heads = 1, .head_dim = 2}, kF32),
        SampleCost(0, 100), ScoreTokensCost(0, 100)}) {
    EXPECT_EQ(cost.bytes, 0);
    EXPECT_EQ(cost.flops, 0);
  }
}

TEST(OpCost, FloorIsTheSlowerOfMemoryAndTheUnitThatComputes) {
  const DeviceLimits limits = {.bytes_per_second = 100,
                               .bf16_flops_per_second = 1000,
                               .f32_flops_per_second = 10};
  EXPECT_EQ(FloorSeconds({.bytes = 200, .flops = 1000, .unit = kBF16}, limits),
            2);
  EXPECT_EQ(FloorSeconds({.bytes = 200, .flops = 5000, .unit = kBF16}, limits),
            5);
  EXPECT_EQ(FloorSeconds({.bytes = 200, .flops = 1000, .unit = kF32}, limits),
            100);
}

}  // namespace
}  // namespace octet
