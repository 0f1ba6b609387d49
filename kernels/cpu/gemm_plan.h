// How a grouped product is cut into work items. Internal to kernels/cpu.
//
// Rows of a group are cut into chunks (whose x stays in the second-level
// cache), a chunk into blocks (what one BlockProduct takes), and the panels of
// W into runs. An item is one chunk times one run of panels: long runs stream
// from memory, and there are enough items for the threads to share.
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
  size_t a_offset = 0;   // bytes, in the packed rows
  int64_t c_offset = 0;  // rows, in the sums of a panel of the chunk
};

struct RowChunk {
  int group = 0;
  int64_t row_begin = 0;
  int64_t rows = 0;
  int64_t padded_rows = 0;  // that the sums of a panel take
  int first_block = 0;
  int num_blocks = 0;
};

struct WorkItem {
  int chunk = 0;
  int64_t panel_begin = 0;
  int64_t panel_end = 0;
};

struct GemmPlan {
  std::vector<RowBlock> blocks;
  std::vector<RowChunk> chunks;
  std::vector<WorkItem> items;
  size_t packed_bytes = 0;
  int64_t max_padded_rows = 0;  // of a chunk
  int64_t max_run = 0;          // panels of an item
};

// num_panels: of the output (of F for SwiGLU); panel_bytes: weights read for
// one of them.
GemmPlan MakeGemmPlan(const GemmKernels& kernels,
                      absl::Span<const int64_t> row_offsets, int64_t num_steps,
                      int64_t num_panels, size_t panel_bytes, int num_threads);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_GEMM_PLAN_H_
