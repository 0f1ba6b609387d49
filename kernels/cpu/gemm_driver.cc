#include "kernels/cpu/gemm_driver.h"

#include <algorithm>
#include <cstring>

#include "base/status_macros.h"
#include "kernels/cpu/gemm_plan.h"
#include "kernels/cpu/packed_matrix.h"

namespace octet::cpu {
namespace {

// Packed rows of a chunk that stay in the second-level cache whole.
constexpr size_t kWholeChunkBytes = size_t{256} << 10;
// How far ahead of the products a panel is fetched from memory.
constexpr int64_t kPrefetchBytes = 8192;
// Panels of a small chunk that are stored together: whole cache lines side by
// side, where memory is the limit. One where weights stream past.
constexpr int64_t kFilledGroup = 8;
// An f32 result larger than this is written past the caches.
constexpr size_t kStreamOutBytes = size_t{4} << 20;
// Rows of `out` fetched ahead where it is added to.
constexpr int64_t kOutRowsAhead = 8;
// Below this, packing rows is not worth waking threads for.
constexpr size_t kSerialPackBytes = size_t{64} << 10;

// Steps of columns that are packed at a time; whole tiles of AMX.
constexpr int64_t kColumnSteps = 16;

// Rows that a block takes in A.
int64_t PaddedRows(const GemmKernels& kernels, const RowBlock& block) {
  return (block.rows + kernels.row_quantum - 1) / kernels.row_quantum *
         kernels.row_quantum;
}

// Runs the items of one call. Sums of a thread: [panel][padded row][32] f32,
// for SwiGLU the gate panels and behind them the up panels.
class Runner {
 public:
  Runner(const GemmCall& call, const GemmPlan& plan,
         const std::byte* packed_rows, GemmWorkspace& workspace)
      : call_(call),
        plan_(plan),
        packed_rows_(packed_rows),
        workspace_(workspace),
        kernels_(workspace.kernels(call.a.dtype())),
        num_steps_(call.panels->num_steps()),
        width_(call.out.dim(1)),
        streams_out_(call.a_transposed && !call.accumulate &&
                     call.out.num_bytes() > kStreamOutBytes) {}

  void RunItem(const WorkItem& item, int thread) const {
    const RowChunk& chunk = plan_.chunks[item.chunk];
    float* sums = workspace_.Sums(thread);
    // Few rows: panel by panel, each read once from end to end. Many: all
    // panels of the run over a part of k, whose rows of A stay in the cache.
    const size_t chunk_bytes =
        chunk.padded_rows * num_steps_ * kernels_.a_step_bytes;
    int64_t group = item.panel_end - item.panel_begin;
    if (chunk_bytes <= kWholeChunkBytes) {
      group = call_.panels->resident() ? 1 : std::min(group, kFilledGroup);
    }
    kernels_.begin();
    for (int64_t p = item.panel_begin; p < item.panel_end; p += group) {
      const int64_t end = std::min(p + group, item.panel_end);
      Multiply(chunk, p, end, thread, sums);
      if (call_.swiglu) ApplySwiGlu(chunk, p, end, thread, sums);
      StorePanels(chunk, p, end, sums);
    }
    if (streams_out_) workspace_.epilogue().stream_end();
    kernels_.end();
  }

 private:
  static float* PanelSums(const RowChunk& chunk, float* sums, int64_t panel) {
    return sums + panel * chunk.padded_rows * kPanelOutputs;
  }

  // Is every byte of W read once, by one block?
  bool Streams(const RowChunk& chunk) const {
    return call_.panels->resident() && chunk.num_blocks == 1 &&
           chunk.rows <= kernels_.one_pass_rows;
  }

  // sums[panel - begin] = rows of the chunk times panels [begin, end).
  void Multiply(const RowChunk& chunk, int64_t begin, int64_t end, int thread,
                float* sums) const {
    const int64_t block_steps = Streams(chunk) ? num_steps_ : kBlockSteps;
    int64_t step = 0;
    do {
      const int64_t steps = std::min(block_steps, num_steps_ - step);
      for (int64_t panel = begin; panel < end; ++panel) {
        const std::byte* b = call_.panels->Block(
            chunk.group, panel, step, steps, workspace_.PanelBlock(thread));
        MultiplyBlocks(chunk, b, step, steps,
                       PanelSums(chunk, sums, panel - begin));
      }
      step += steps;
    } while (step < num_steps_);
  }

  void MultiplyBlocks(const RowChunk& chunk, const std::byte* b_block,
                      int64_t step, int64_t steps, float* sums) const {
    const int64_t num_blocks = chunk.num_blocks;
    BlockProduct product;
    product.b = b_block;
    product.steps = steps;
    product.accumulate = step > 0;
    // A streaming chunk fetches the panel a fixed distance ahead. The blocks of
    // others share out what follows this part of the panel. Of a panel that is
    // filled block by block nothing follows.
    const bool resident = call_.panels->resident();
    product.prefetch_stride = resident ? kStepBytes / num_blocks : 0;
    int64_t ahead = 0;
    if (resident) ahead = Streams(chunk) ? kPrefetchBytes : steps * kStepBytes;
    for (int64_t b = 0; b < num_blocks; ++b) {
      const RowBlock& block = plan_.blocks[chunk.first_block + b];
      product.a = packed_rows_ + block.a_offset +
                  step * PaddedRows(kernels_, block) * kernels_.a_step_bytes;
      product.c = sums + block.c_offset * kPanelOutputs;
      product.rows = block.rows;
      product.prefetch =
          product.b + ahead + b * steps * product.prefetch_stride;
      kernels_.multiply(product);
    }
  }

  // The sums of gate panels [begin, end) become those of the activation.
  void ApplySwiGlu(const RowChunk& chunk, int64_t begin, int64_t end,
                   int thread, float* sums) const {
    // Up columns of gate panel p start at F + 32 p, which need not be the start
    // of a panel.
    const int64_t up_begin = (width_ + begin * kPanelOutputs) / kPanelOutputs;
    const int64_t last_up = width_ + std::min(end * kPanelOutputs, width_) - 1;
    const int64_t up_end = last_up / kPanelOutputs + 1;
    float* up = PanelSums(chunk, sums, end - begin);
    Multiply(chunk, up_begin, up_end, thread, up);
    for (int64_t panel = begin; panel < end; ++panel) {
      float* gate = PanelSums(chunk, sums, panel - begin);
      const float* aligned_up = PanelSums(chunk, up, panel - begin);
      if (width_ % kPanelOutputs == 0) {
        workspace_.epilogue().silu_mul(gate, aligned_up,
                                       chunk.padded_rows * kPanelOutputs);
      } else {
        SiluMulShifted(chunk, gate, aligned_up,
                       panel + (width_ / kPanelOutputs) + 1 < up_end);
      }
    }
  }

  // The up columns straddle two panels, of which the second may not exist.
  void SiluMulShifted(const RowChunk& chunk, float* gate, const float* up,
                      bool has_second) const {
    const int64_t shift = width_ % kPanelOutputs;
    const float* second = up + chunk.padded_rows * kPanelOutputs;
    for (int64_t row = 0; row < chunk.padded_rows; ++row) {
      float joined[kPanelOutputs] = {};
      std::memcpy(joined, up + row * kPanelOutputs + shift,
                  (kPanelOutputs - shift) * sizeof(float));
      if (has_second) {
        std::memcpy(joined + kPanelOutputs - shift,
                    second + row * kPanelOutputs, shift * sizeof(float));
      }
      workspace_.epilogue().silu_mul(gate + row * kPanelOutputs, joined,
                                     kPanelOutputs);
    }
  }

  // Row by row: the panels of a run are side by side in memory.
  void StorePanels(const RowChunk& chunk, int64_t begin, int64_t end,
                   float* sums) const {
    for (int b = 0; b < chunk.num_blocks; ++b) {
      const RowBlock& block = plan_.blocks[chunk.first_block + b];
      for (int64_t row = 0; row < block.rows; ++row) {
        const int64_t at = (block.row_begin + row) * width_;
        if (call_.accumulate && block.row_begin + row + kOutRowsAhead <
                                    chunk.row_begin + chunk.rows) {
          FetchOut(at + kOutRowsAhead * width_, begin, end);
        }
        for (int64_t panel = begin; panel < end; ++panel) {
          const int64_t column = panel * kPanelOutputs;
          StoreRow(PanelSums(chunk, sums, panel - begin) +
                       (block.c_offset + row) * kPanelOutputs,
                   std::min(kPanelOutputs, width_ - column), at + column);
        }
      }
    }
  }

  void FetchOut(int64_t at, int64_t begin, int64_t end) const {
    const char* out = static_cast<const char*>(call_.out.data()) +
                      (at + begin * kPanelOutputs) * sizeof(float);
    for (int64_t i = 0; i < (end - begin) * kPanelOutputs * 4; i += 64) {
      __builtin_prefetch(out + i, /*rw=*/1);
    }
  }

  void StoreRow(float* sums, int64_t count, int64_t at) const {
    if (call_.scale != 1.0f) {
      for (int64_t i = 0; i < kPanelOutputs; ++i) sums[i] *= call_.scale;
    }
    if (call_.out.dtype() == DType::kBF16) {
      BF16* out = static_cast<BF16*>(call_.out.data()) + at;
      if (count == kPanelOutputs) {
        workspace_.epilogue().to_bf16(sums, out, kPanelOutputs);
      } else {
        BF16 rounded[kPanelOutputs];
        workspace_.epilogue().to_bf16(sums, rounded, kPanelOutputs);
        std::memcpy(out, rounded, count * sizeof(BF16));
      }
      return;
    }
    float* out = static_cast<float*>(call_.out.data()) + at;
    if (call_.accumulate) {
      for (int64_t i = 0; i < count; ++i) out[i] += sums[i];
    } else if (streams_out_ && count == kPanelOutputs &&
               reinterpret_cast<uintptr_t>(out) % 64 == 0) {
      workspace_.epilogue().stream(sums, out, kPanelOutputs);
    } else {
      std::memcpy(out, sums, count * sizeof(float));
    }
  }

  const GemmCall& call_;
  const GemmPlan& plan_;
  const std::byte* const packed_rows_;
  GemmWorkspace& workspace_;
  const GemmKernels& kernels_;
  const int64_t num_steps_;
  const int64_t width_;  // columns of out
  const bool streams_out_;
};

void PackRows(const GemmCall& call, const GemmPlan& plan, std::byte* packed,
              GemmWorkspace& workspace) {
  const GemmKernels& kernels = workspace.kernels(call.a.dtype());
  const int64_t k = call.a.dim(1);
  const int64_t num_steps = call.panels->num_steps();
  const std::byte* a = static_cast<const std::byte*>(call.a.data());
  const auto pack = [&](int64_t i, int /*thread*/) {
    const RowBlock& block = plan.blocks[i];
    kernels.pack_rows(a + block.row_begin * k * SizeOf(call.a.dtype()),
                      block.rows, k, num_steps, packed + block.a_offset);
  };
  const int64_t num_blocks = static_cast<int64_t>(plan.blocks.size());
  if (plan.packed_bytes > kSerialPackBytes) {
    workspace.pool().ParallelFor(num_blocks, pack);
  } else {
    for (int64_t i = 0; i < num_blocks; ++i) pack(i, 0);
  }
}

// All blocks of a chunk together, over a few steps at a time: their columns
// share cache lines.
void PackColumns(const GemmCall& call, const GemmPlan& plan, std::byte* packed,
                 GemmWorkspace& workspace) {
  const GemmKernels& kernels = workspace.kernels(call.a.dtype());
  const int64_t size = SizeOf(call.a.dtype());
  const int64_t num_steps = call.panels->num_steps();
  const int64_t parts =
      std::max<int64_t>(1, (num_steps + kColumnSteps - 1) / kColumnSteps);
  const auto pack = [&](int64_t item, int /*thread*/) {
    const RowChunk& chunk = plan.chunks[item / parts];
    const int64_t step = item % parts * kColumnSteps;
    const int64_t row = call.a.dtype() == DType::kF32 ? step : 2 * step;
    for (int b = 0; b < chunk.num_blocks; ++b) {
      const RowBlock& block = plan.blocks[chunk.first_block + b];
      const int64_t column = call.a_column + block.row_begin;
      ColumnSource source;
      source.data = static_cast<const std::byte*>(call.a.data()) +
                    (row * call.a.dim(1) + column) * size;
      source.stride = call.a.dim(1);
      source.columns = block.rows;
      source.rows = call.a.dim(0) - row;
      kernels.pack_columns(
          source, std::min(kColumnSteps, num_steps - step),
          packed + block.a_offset +
              step * PaddedRows(kernels, block) * kernels.a_step_bytes);
    }
  };
  const int64_t num_items = static_cast<int64_t>(plan.chunks.size()) * parts;
  workspace.pool().ParallelFor(num_items, pack);
}

}  // namespace

absl::Status RunGemm(const GemmCall& call,
                     absl::Span<const int64_t> row_offsets,
                     GemmWorkspace& workspace) {
  if (call.out.dim(1) == 0) return absl::OkStatus();
  const GemmKernels& kernels = workspace.kernels(call.a.dtype());
  const int64_t num_steps = call.panels->num_steps();
  const int64_t num_panels =
      (call.out.dim(1) + kPanelOutputs - 1) / kPanelOutputs;
  const size_t panel_bytes =
      static_cast<size_t>(num_steps) * kStepBytes * (call.swiglu ? 2 : 1);
  const GemmPlan plan =
      MakeGemmPlan(kernels, row_offsets, num_steps, num_panels, panel_bytes,
                   workspace.pool().num_threads());
  if (plan.items.empty()) return absl::OkStatus();

  // Gate panels, up panels and one more where up columns straddle two.
  const int64_t sum_panels = call.swiglu ? 2 * plan.max_run + 1 : plan.max_run;
  OCTET_RETURN_IF_ERROR(workspace.ReserveSums(
      sum_panels * plan.max_padded_rows * kPanelOutputs * sizeof(float)));
  OCTET_ASSIGN_OR_RETURN(std::byte * packed,
                         workspace.PackedRows(plan.packed_bytes));
  if (call.a_transposed) {
    PackColumns(call, plan, packed, workspace);
  } else {
    PackRows(call, plan, packed, workspace);
  }
  const Runner runner(call, plan, packed, workspace);
  workspace.pool().ParallelFor(
      static_cast<int64_t>(plan.items.size()),
      [&](int64_t i, int thread) { runner.RunItem(plan.items[i], thread); });
  return absl::OkStatus();
}

}  // namespace octet::cpu
