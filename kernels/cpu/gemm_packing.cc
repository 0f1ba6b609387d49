#include "kernels/cpu/gemm_packing.h"

#include <algorithm>

namespace octet::cpu {
namespace {

// Below this, packing rows is not worth waking threads for.
constexpr size_t kSerialPackBytes = size_t{64} << 10;
// Steps of columns that are packed at a time; whole tiles of AMX.
constexpr int64_t kColumnSteps = 16;

}  // namespace

void PackRows(ConstTensor a, const GemmPlan& plan, const StepRange& steps,
              std::byte* packed, GemmWorkspace& workspace) {
  const GemmKernels& kernels = workspace.kernels(a.dtype());
  const int64_t k = a.dim(1);
  const std::byte* from = static_cast<const std::byte*>(a.data());
  const auto pack = [&](int64_t i, int /*thread*/) {
    const RowBlock& block = plan.blocks[i];
    kernels.pack_rows(from + block.row_begin * k * SizeOf(a.dtype()),
                      block.rows, k, steps.count,
                      packed + PackedOffset(kernels, block, steps.first));
  };
  const int64_t num_blocks = static_cast<int64_t>(plan.blocks.size());
  if (a.num_bytes() > kSerialPackBytes) {
    workspace.pool().ParallelFor(num_blocks, pack);
  } else {
    for (int64_t i = 0; i < num_blocks; ++i) pack(i, 0);
  }
}

// All blocks of a chunk together, over a few steps at a time: their columns
// share cache lines.
void PackColumns(ConstTensor a, int64_t a_column, const GemmPlan& plan,
                 int64_t num_steps, std::byte* packed,
                 GemmWorkspace& workspace) {
  const GemmKernels& kernels = workspace.kernels(a.dtype());
  const int64_t size = SizeOf(a.dtype());
  const int64_t parts =
      std::max<int64_t>(1, (num_steps + kColumnSteps - 1) / kColumnSteps);
  const auto pack = [&](int64_t item, int /*thread*/) {
    const RowChunk& chunk = plan.chunks[item / parts];
    const int64_t step = item % parts * kColumnSteps;
    const int64_t row = a.dtype() == DType::kF32 ? step : 2 * step;
    for (int b = 0; b < chunk.num_blocks; ++b) {
      const RowBlock& block = plan.blocks[chunk.first_block + b];
      const int64_t column = a_column + block.row_begin;
      ColumnSource source;
      source.data = static_cast<const std::byte*>(a.data()) +
                    (row * a.dim(1) + column) * size;
      source.stride = a.dim(1);
      source.columns = block.rows;
      source.rows = a.dim(0) - row;
      kernels.pack_columns(source, std::min(kColumnSteps, num_steps - step),
                           packed + PackedOffset(kernels, block, step));
    }
  };
  const int64_t num_items = static_cast<int64_t>(plan.chunks.size()) * parts;
  workspace.pool().ParallelFor(num_items, pack);
}

}  // namespace octet::cpu
