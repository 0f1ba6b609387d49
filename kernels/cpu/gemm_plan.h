// How a grouped product is cut into work items. Internal to kernels/cpu.
//
// Rows of a group are cut into chunks, a chunk into blocks (what one
// BlockProduct takes), and the panels of W into runs. Some items lay out a
// chunk's rows as A; the others multiply a chunk with one run of panels: long
// runs stream from memory, and short ones at the end let the threads end
// together.
//
// A of few chunks exists at a time: an item of chunk c + 1 comes before the
// products of chunk c, and chunk c + num_slots takes the place of chunk c.
#ifndef OCTET_KERNELS_CPU_GEMM_PLAN_H_
#define OCTET_KERNELS_CPU_GEMM_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/cpu/gemm_kernels.h"

namespace octet::cpu {

struct RowBlock {
  int64_t row_begin = 0;  // in x
  int rows = 0;
  size_t a_offset = 0;   // bytes, in the chunk's A
  int64_t c_offset = 0;  // rows, in the sums of a panel of the chunk
};

struct RowChunk {
  int group = 0;
  int64_t row_begin = 0;
  int64_t rows = 0;
  int64_t padded_rows = 0;  // that the sums of a panel take
  int first_block = 0;
  int num_blocks = 0;
  size_t bytes = 0;     // of its A
  int num_layouts = 0;  // items of either kind
  int num_products = 0;
};

struct WorkItem {
  enum class Kind { kLayOut, kMultiply };

  Kind kind = Kind::kMultiply;
  int chunk = 0;
  // kMultiply: panels. kLayOut: blocks, counted from the chunk's first; or of
  // columns, steps of all blocks.
  int64_t begin = 0;
  int64_t end = 0;
};

struct GemmPlan {
  std::vector<RowBlock> blocks;
  std::vector<RowChunk> chunks;
  std::vector<WorkItem> items;
  size_t slot_bytes = 0;  // A of the largest chunk
  int num_slots = 0;
  int64_t max_padded_rows = 0;  // of a chunk
  int64_t max_run = 0;          // panels of an item
};

// What a product looks like to the plan.
struct GemmPlanShape {
  int64_t num_steps = 0;   // of A
  int64_t num_panels = 0;  // of the output (of F for SwiGLU)
  int64_t sum_panels = 1;  // of sums for one of them
  size_t panel_bytes = 0;  // weights read for one of them
  bool a_transposed = false;
};

GemmPlan MakeGemmPlan(const GemmKernels& kernels,
                      absl::Span<const int64_t> row_offsets,
                      const GemmPlanShape& shape, int num_threads);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_GEMM_PLAN_H_
