// A of a product laid out for the block products. Internal to kernels/cpu.
#ifndef OCTET_KERNELS_CPU_GEMM_PACKING_H_
#define OCTET_KERNELS_CPU_GEMM_PACKING_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/gemm_plan.h"
#include "kernels/cpu/gemm_workspace.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// Steps of A: [first, first + count) of those of each block of the plan.
struct StepRange {
  int64_t first = 0;
  int64_t count = 0;
};

// Rows that a block takes in A.
inline int64_t PaddedRows(const GemmKernels& kernels, const RowBlock& block) {
  return (block.rows + kernels.row_quantum - 1) / kernels.row_quantum *
         kernels.row_quantum;
}

// Where a step of a block is.
inline size_t PackedOffset(const GemmKernels& kernels, const RowBlock& block,
                           int64_t step) {
  return block.a_offset +
         step * PaddedRows(kernels, block) * kernels.a_step_bytes;
}

// The rows of a [T, k] of the plan's blocks.
void PackRows(ConstTensor a, const GemmPlan& plan, const StepRange& steps,
              std::byte* packed, GemmWorkspace& workspace);

// The columns [a_column, ...) of a [k, N], which are the plan's rows. All steps
// of the plan.
void PackColumns(ConstTensor a, int64_t a_column, const GemmPlan& plan,
                 int64_t num_steps, std::byte* packed,
                 GemmWorkspace& workspace);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_GEMM_PACKING_H_
