#include "kernels/cpu/gemm_plan.h"

#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/gemm_amx-inl.h"

namespace octet::cpu {
namespace {

constexpr int64_t kSteps = 48;

// Of the planner's inputs only these matter.
GemmKernels Shape(int max_rows, int row_quantum) {
  GemmKernels kernels = AmxKernels<SoftwareTiles>("shape only");
  kernels.max_rows = max_rows;
  kernels.row_quantum = row_quantum;
  return kernels;
}

// Every row of a group meets every panel exactly once, blocks do not overlap in
// their chunk's A or in the sums, and no block is larger than a product takes.
void ExpectCovers(const GemmKernels& kernels, const GemmPlan& plan,
                  const std::vector<int64_t>& row_offsets, int64_t num_panels) {
  std::vector<std::vector<int>> covered(row_offsets.back(),
                                        std::vector<int>(num_panels, 0));
  for (const WorkItem& item : plan.items) {
    if (item.kind != WorkItem::Kind::kMultiply) continue;
    const RowChunk& chunk = plan.chunks[item.chunk];
    ASSERT_LE(item.end - item.begin, plan.max_run);
    ASSERT_LE(chunk.padded_rows, plan.max_padded_rows);
    ASSERT_GE(chunk.row_begin, row_offsets[chunk.group]);
    ASSERT_LE(chunk.row_begin + chunk.rows, row_offsets[chunk.group + 1]);
    int64_t row = chunk.row_begin;
    int64_t c_end = 0;
    for (int b = 0; b < chunk.num_blocks; ++b) {
      const RowBlock& block = plan.blocks[chunk.first_block + b];
      ASSERT_EQ(block.row_begin, row);
      ASSERT_GE(block.rows, 1);
      ASSERT_LE(block.rows, kernels.max_rows);
      ASSERT_EQ(block.c_offset, c_end);
      for (int r = 0; r < block.rows; ++r, ++row) {
        for (int64_t p = item.begin; p < item.end; ++p) {
          ++covered[row][p];
        }
      }
      c_end += (block.rows + kernels.row_quantum - 1) / kernels.row_quantum *
               kernels.row_quantum;
    }
    ASSERT_EQ(row, chunk.row_begin + chunk.rows);
    ASSERT_EQ(c_end, chunk.padded_rows);
  }
  for (const auto& row : covered) {
    ASSERT_EQ(row, std::vector<int>(num_panels, 1));
  }
  for (const RowChunk& chunk : plan.chunks) {
    size_t a_end = 0;
    for (int b = 0; b < chunk.num_blocks; ++b) {
      const RowBlock& block = plan.blocks[chunk.first_block + b];
      ASSERT_GE(block.a_offset, a_end);
      a_end = block.a_offset + block.rows * kSteps * kernels.a_step_bytes;
    }
    ASSERT_LE(a_end, plan.slot_bytes);
  }
}

// A chunk is laid out once, before its products, and in a place that no chunk
// has whose products come later.
void ExpectOrder(const GemmPlan& plan, const GemmPlanShape& shape) {
  const size_t num_chunks = plan.chunks.size();
  std::vector<int64_t> laid_out(num_chunks, 0), layouts(num_chunks, 0);
  std::vector<int> products(num_chunks, 0);
  for (const WorkItem& item : plan.items) {
    const RowChunk& chunk = plan.chunks[item.chunk];
    if (item.kind == WorkItem::Kind::kLayOut) {
      ASSERT_EQ(item.begin, laid_out[item.chunk]);
      laid_out[item.chunk] = item.end;
      ++layouts[item.chunk];
      const int before = item.chunk - plan.num_slots;
      if (before >= 0) {
        ASSERT_EQ(products[before], plan.chunks[before].num_products);
      }
    } else {
      ASSERT_EQ(layouts[item.chunk], chunk.num_layouts);
      ++products[item.chunk];
    }
  }
  for (size_t c = 0; c < num_chunks; ++c) {
    ASSERT_EQ(laid_out[c],
              shape.a_transposed ? shape.num_steps : plan.chunks[c].num_blocks);
    ASSERT_EQ(products[c], plan.chunks[c].num_products);
  }
}

TEST(GemmPlanTest, EveryRowMeetsEveryPanelOnce) {
  std::mt19937 random(3);
  for (int trial = 0; trial < 60; ++trial) {
    std::vector<int64_t> row_offsets = {0};
    const int num_groups = 1 + random() % 9;
    for (int g = 0; g < num_groups; ++g) {
      const int64_t rows = random() % 3 == 0 ? 0 : random() % 40;
      row_offsets.push_back(row_offsets.back() + rows);
    }
    if (trial % 10 == 0) row_offsets.push_back(row_offsets.back() + 700);
    const int64_t num_panels = 1 + random() % 50;
    const GemmKernels kernels = trial % 2 == 0 ? Shape(12, 1) : Shape(32, 16);
    GemmPlanShape shape;
    shape.num_steps = kSteps;
    shape.num_panels = num_panels;
    shape.sum_panels = 1 + trial % 3 / 2;
    shape.a_transposed = trial % 4 == 3;
    shape.panel_bytes = size_t{1} << (random() % 22);
    const GemmPlan plan =
        MakeGemmPlan(kernels, row_offsets, shape, 1 + random() % 4);
    ASSERT_NO_FATAL_FAILURE(
        ExpectCovers(kernels, plan, row_offsets, num_panels));
    ASSERT_NO_FATAL_FAILURE(ExpectOrder(plan, shape));
  }
}

// A decode step in which each expert got a row or two has work for all threads.
TEST(GemmPlanTest, DecodeSharesOutOverThreads) {
  const GemmPlan plan = MakeGemmPlan(
      Shape(12, 1), {0, 1, 3, 4, 4, 6, 7, 8, 9},
      {.num_steps = 2048, .num_panels = 448, .panel_bytes = size_t{512} << 10},
      8);
  EXPECT_GE(plan.items.size(), 8u * 4);
  EXPECT_GE(plan.max_run, 4);  // and still streams
}

// A large A is kept a few chunks at a time.
TEST(GemmPlanTest, KeepsFewChunksOfALargeA) {
  const GemmPlanShape shape = {.num_steps = 8192, .num_panels = 40};
  const std::vector<int64_t> row_offsets = {0, 512, 700, 1212, 2236};
  const GemmKernels kernels = Shape(12, 1);
  const GemmPlan plan = MakeGemmPlan(kernels, row_offsets, shape, 2);
  EXPECT_EQ(plan.chunks.size(), 5u);
  EXPECT_EQ(plan.num_slots, 3);
  ExpectOrder(plan, shape);
}

TEST(GemmPlanTest, NoRowsNoItems) {
  EXPECT_TRUE(MakeGemmPlan(Shape(12, 1), {0, 0, 0},
                           {.num_steps = kSteps, .num_panels = 5}, 2)
                  .items.empty());
}

}  // namespace
}  // namespace octet::cpu
