// A of a product laid out for the block products. Internal to kernels/cpu.
#ifndef OCTET_KERNELS_CPU_GEMM_PACKING_H_
#define OCTET_KERNELS_CPU_GEMM_PACKING_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/gemm_plan.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// Steps [first, first + count) of blocks.
struct StepRange {
  int64_t first = 0;
  int64_t count = 0;
};

// Rows that a block takes in A.
inline int64_t PaddedRows(const GemmKernels& kernels, const RowBlock& block) {
  return (block.rows + kernels.row_quantum - 1) / kernels.row_quantum *
         kernels.row_quantum;
}

// Where a step of a block is in its chunk's A.
inline size_t PackedOffset(const GemmKernels& kernels, const RowBlock& block,
                           int64_t step) {
  return block.a_offset +
         step * PaddedRows(kernels, block) * kernels.a_step_bytes;
}

// The blocks' rows of x [T, k] as `steps` of the chunk's A.
void PackRows(ConstTensor x, const GemmKernels& kernels,
              absl::Span<const RowBlock> blocks, const StepRange& steps,
              std::byte* a);

// `steps` of the columns [column, ...) of x [k, N], which are the blocks' rows,
// as the same steps of A. Blocks side by side, so that they share cache lines.
void PackColumns(ConstTensor x, int64_t column, const GemmKernels& kernels,
                 absl::Span<const RowBlock> blocks, const StepRange& steps,
                 std::byte* a);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_GEMM_PACKING_H_
