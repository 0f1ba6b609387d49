#include "kernels/cpu/gemm_plan.h"

#include <algorithm>

namespace octet::cpu {
namespace {

// Of a chunk. A panel that is filled block by block is filled once for each.
constexpr int64_t kMaxChunkRows = 512;
constexpr int64_t kMaxRun = 16;
// Rows of sums of a run, 32 f32 each: half of a second-level cache of 1 MiB,
// whose other half holds a part of A.
constexpr int64_t kMaxSumRows = 4096;
constexpr size_t kMaxStreamBytes = size_t{4} << 20;  // of a run of few rows
constexpr int64_t kFewRows = 32;
// An item is this part of what is left for a thread, or less.
constexpr int64_t kItemsPerThread = 4;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }

// Cuts [begin, begin + rows) of a group into chunks and blocks of nearly equal
// size.
void AddRows(const GemmKernels& kernels, int group, int64_t begin, int64_t rows,
             int64_t num_steps, GemmPlan* plan) {
  const int64_t quantum = kernels.row_quantum;
  const int64_t num_chunks = CeilDiv(rows, kMaxChunkRows);
  const int64_t chunk_rows = RoundUp(CeilDiv(rows, num_chunks), quantum);
  for (int64_t done = 0; done < rows; done += chunk_rows) {
    RowChunk chunk;
    chunk.group = group;
    chunk.row_begin = begin + done;
    chunk.rows = std::min(chunk_rows, rows - done);
    chunk.first_block = static_cast<int>(plan->blocks.size());
    const int64_t num_blocks = CeilDiv(chunk.rows, kernels.max_rows);
    const int64_t block_rows =
        RoundUp(CeilDiv(chunk.rows, num_blocks), quantum);
    for (int64_t at = 0; at < chunk.rows; at += block_rows) {
      RowBlock block;
      block.row_begin = chunk.row_begin + at;
      block.rows = static_cast<int>(std::min(block_rows, chunk.rows - at));
      block.a_offset = plan->packed_bytes;
      block.c_offset = chunk.padded_rows;
      const int64_t padded = RoundUp(block.rows, quantum);
      chunk.padded_rows += padded;
      // Whole cache lines: two threads may fill neighbouring blocks.
      plan->packed_bytes +=
          RoundUp(padded * num_steps * kernels.a_step_bytes, 64);
      plan->blocks.push_back(block);
    }
    chunk.num_blocks =
        static_cast<int>(plan->blocks.size()) - chunk.first_block;
    plan->max_padded_rows = std::max(plan->max_padded_rows, chunk.padded_rows);
    plan->chunks.push_back(chunk);
  }
}

// The first items are the longest and the last ones short, so that no thread
// waits long for another's last.
void AddItems(const GemmPlanShape& shape, int num_threads, GemmPlan* plan) {
  int64_t left = 0;  // rows times panels
  for (const RowChunk& chunk : plan->chunks) {
    left += chunk.rows * shape.num_panels;
  }
  const int64_t stream_run = std::max<int64_t>(
      1, kMaxStreamBytes / std::max<size_t>(1, shape.panel_bytes));
  for (size_t c = 0; c < plan->chunks.size(); ++c) {
    const RowChunk& chunk = plan->chunks[c];
    const int64_t cache_run = std::max<int64_t>(
        1, kMaxSumRows / (chunk.padded_rows * shape.sum_panels));
    const int64_t longest =
        std::min(kMaxRun, chunk.rows <= kFewRows ? stream_run : cache_run);
    for (int64_t panel = 0; panel < shape.num_panels;) {
      const int64_t fair = left / (num_threads * kItemsPerThread * chunk.rows);
      const int64_t run = std::min(std::clamp<int64_t>(fair, 1, longest),
                                   shape.num_panels - panel);
      plan->items.push_back({static_cast<int>(c), panel, panel + run});
      plan->max_run = std::max(plan->max_run, run);
      left -= run * chunk.rows;
      panel += run;
    }
  }
}

}  // namespace

GemmPlan MakeGemmPlan(const GemmKernels& kernels,
                      absl::Span<const int64_t> row_offsets,
                      const GemmPlanShape& shape, int num_threads) {
  GemmPlan plan;
  for (size_t group = 0; group + 1 < row_offsets.size(); ++group) {
    const int64_t rows = row_offsets[group + 1] - row_offsets[group];
    if (rows > 0) {
      AddRows(kernels, static_cast<int>(group), row_offsets[group], rows,
              shape.num_steps, &plan);
    }
  }
  AddItems(shape, num_threads, &plan);
  return plan;
}

}  // namespace octet::cpu
