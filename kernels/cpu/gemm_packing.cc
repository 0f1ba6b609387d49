#include "kernels/cpu/gemm_packing.h"

#include "kernels/cpu/packed_matrix.h"

namespace octet::cpu {

void PackRows(ConstTensor x, const GemmKernels& kernels,
              absl::Span<const RowBlock> blocks, const StepRange& steps,
              std::byte* a) {
  const int64_t k = x.dim(1);
  const std::byte* data = static_cast<const std::byte*>(x.data());
  for (const RowBlock& block : blocks) {
    kernels.pack_rows(data + block.row_begin * k * SizeOf(x.dtype()),
                      block.rows, k, steps.count,
                      a + PackedOffset(kernels, block, steps.first));
  }
}

void PackColumns(ConstTensor x, int64_t column, const GemmKernels& kernels,
                 absl::Span<const RowBlock> blocks, const StepRange& steps,
                 std::byte* a) {
  const int64_t row = steps.first * InputsPerStep(x.dtype());
  for (const RowBlock& block : blocks) {
    ColumnSource source;
    source.data =
        static_cast<const std::byte*>(x.data()) +
        (row * x.dim(1) + column + block.row_begin) * SizeOf(x.dtype());
    source.stride = x.dim(1);
    source.columns = block.rows;
    source.rows = x.dim(0) - row;
    kernels.pack_columns(source, steps.count,
                         a + PackedOffset(kernels, block, steps.first));
  }
}

}  // namespace octet::cpu
