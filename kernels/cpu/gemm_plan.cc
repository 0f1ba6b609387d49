#include "kernels/cpu/gemm_plan.h"

#include <algorithm>

#include "kernels/cpu/aligned_memory.h"

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
constexpr int64_t kItemsPerThread = 2;
// Every run reads the chunk's A again: with each 4 MiB of it, which come from
// further away, the shortest run is a panel longer.
constexpr size_t kBytesOfOneRead = size_t{4} << 20;
constexpr int64_t kMaxShortRun = 4;
// What one item lays out: blocks that stay in the second-level cache, or steps
// of columns; whole tiles of AMX.
constexpr size_t kLayoutBytes = size_t{384} << 10;
constexpr int64_t kColumnSteps = 16;
// A that is larger than this is kept chunk by chunk: what is multiplied, what
// is laid out meanwhile, and what is still being multiplied.
constexpr size_t kAllSlotBytes = size_t{4} << 20;
constexpr int kFewSlots = 3;

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
      block.a_offset = chunk.bytes;
      block.c_offset = chunk.padded_rows;
      const int64_t padded = RoundUp(block.rows, quantum);
      chunk.padded_rows += padded;
      // Whole cache lines: two threads may fill neighbouring blocks.
      chunk.bytes +=
          RoundUp(padded * num_steps * kernels.a_step_bytes, kCacheLine);
      plan->blocks.push_back(block);
    }
    chunk.num_blocks =
        static_cast<int>(plan->blocks.size()) - chunk.first_block;
    plan->max_padded_rows = std::max(plan->max_padded_rows, chunk.padded_rows);
    plan->slot_bytes = std::max(plan->slot_bytes, chunk.bytes);
    plan->chunks.push_back(chunk);
  }
}

// The items of a plan, one after another.
class ItemList {
 public:
  ItemList(const GemmPlanShape& shape, int num_threads, GemmPlan* plan)
      : shape_(shape), num_threads_(num_threads), plan_(*plan) {
    for (const RowChunk& chunk : plan_.chunks) {
      left_ += chunk.rows * shape.num_panels;
    }
  }

  void Make() {
    const int num_chunks = static_cast<int>(plan_.chunks.size());
    for (int c = 0; c <= num_chunks; ++c) {
      if (c < num_chunks) AddLayouts(c);
      if (c > 0) AddProducts(c - 1);
    }
  }

 private:
  void AddLayouts(int c) {
    RowChunk& chunk = plan_.chunks[c];
    int64_t count = chunk.num_blocks;
    int64_t length = CeilDiv(count, num_threads_);
    if (shape_.a_transposed) {
      count = shape_.num_steps;
      length = kColumnSteps;
    } else {
      const size_t block_bytes =
          std::max<size_t>(1, chunk.bytes / chunk.num_blocks);
      length = std::clamp<int64_t>(kLayoutBytes / block_bytes, 1, length);
    }
    int64_t begin = 0;
    do {  // of no steps at all, too: the sums are zeros
      const int64_t end = std::min(begin + length, count);
      plan_.items.push_back({WorkItem::Kind::kLayOut, c, begin, end});
      ++chunk.num_layouts;
      begin = end;
    } while (begin < count);
  }

  // The first ones are the longest and the last ones short, so that no thread
  // waits long for another's last.
  void AddProducts(int c) {
    RowChunk& chunk = plan_.chunks[c];
    const int64_t stream_run = std::max<int64_t>(
        1, kMaxStreamBytes / std::max<size_t>(1, shape_.panel_bytes));
    const int64_t cache_run = std::max<int64_t>(
        1, kMaxSumRows / (chunk.padded_rows * shape_.sum_panels));
    const int64_t longest =
        std::min(kMaxRun, chunk.rows <= kFewRows ? stream_run : cache_run);
    const int64_t shortest = std::clamp<int64_t>(
        chunk.bytes / kBytesOfOneRead, 1, std::min(longest, kMaxShortRun));
    for (int64_t panel = 0; panel < shape_.num_panels;) {
      const int64_t fair =
          left_ / (num_threads_ * kItemsPerThread * chunk.rows);
      const int64_t run = std::min(std::clamp(fair, shortest, longest),
                                   shape_.num_panels - panel);
      plan_.items.push_back({WorkItem::Kind::kMultiply, c, panel, panel + run});
      plan_.max_run = std::max(plan_.max_run, run);
      ++chunk.num_products;
      left_ -= run * chunk.rows;
      panel += run;
    }
  }

  const GemmPlanShape& shape_;
  const int num_threads_;
  GemmPlan& plan_;
  int64_t left_ = 0;  // rows times panels that no item has yet
};

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
  const int num_chunks = static_cast<int>(plan.chunks.size());
  plan.num_slots = plan.slot_bytes * num_chunks <= kAllSlotBytes
                       ? num_chunks
                       : std::min(num_chunks, kFewSlots);
  ItemList(shape, num_threads, &plan).Make();
  return plan;
}

}  // namespace octet::cpu
