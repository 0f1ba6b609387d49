#include "kernels/cpu/gemm.h"

#include <algorithm>
#include <cstring>

#include "base/status_macros.h"
#include "kernels/cpu/gemm_plan.h"
#include "kernels/cpu/packed_matrix.h"

namespace octet::cpu {
namespace {

// A block of W of this many steps (16 KiB) stays in the first-level cache while
// all row blocks of a chunk pass over it; whole tiles (16 steps) of AMX.
constexpr int64_t kBlockSteps = 128;
// Packed rows of a chunk that stay in the second-level cache whole.
constexpr size_t kWholeChunkBytes = size_t{256} << 10;
// How far ahead of the products a panel is fetched from memory.
constexpr int64_t kPrefetchBytes = 8192;
// Below this, packing rows is not worth waking threads for.
constexpr size_t kSerialPackBytes = size_t{64} << 10;

struct Call {
  ConstTensor x;
  absl::Span<const PackedMatrix* const> w;
  bool accumulate = false;
  Tensor out;
  bool swiglu = false;
};

const CpuPackedMatrix& Cast(const PackedMatrix& matrix) {
  return static_cast<const CpuPackedMatrix&>(matrix);
}

// Runs the items of one call. Sums of a thread: [panel][padded row][32] f32,
// for SwiGLU the gate panels and behind them the up panels.
class Runner {
 public:
  Runner(const Call& call, const GemmPlan& plan, const std::byte* packed_rows,
         GemmWorkspace& workspace)
      : call_(call),
        plan_(plan),
        packed_rows_(packed_rows),
        workspace_(workspace),
        kernels_(workspace.kernels(call.x.dtype())),
        width_(call.out.dim(1)) {}

  void RunItem(const WorkItem& item, int thread) const {
    const RowChunk& chunk = plan_.chunks[item.chunk];
    const CpuPackedMatrix& w = Cast(*call_.w[chunk.group]);
    float* sums = workspace_.Sums(thread);
    // Few rows: panel by panel, each read once from end to end. Many: all
    // panels of the run over a part of k, whose rows of x stay in the cache.
    const size_t chunk_bytes =
        chunk.padded_rows * w.num_steps() * kernels_.a_step_bytes;
    const int64_t group =
        chunk_bytes <= kWholeChunkBytes ? 1 : item.panel_end - item.panel_begin;
    kernels_.begin();
    for (int64_t p = item.panel_begin; p < item.panel_end; p += group) {
      const int64_t end = std::min(p + group, item.panel_end);
      if (call_.swiglu) {
        RunSwiGlu(chunk, w, p, end, sums);
      } else {
        Multiply(chunk, w, p, end, sums);
        for (int64_t panel = p; panel < end; ++panel) {
          StorePanel(chunk, panel, PanelSums(chunk, sums, panel - p));
        }
      }
    }
    kernels_.end();
  }

 private:
  static float* PanelSums(const RowChunk& chunk, float* sums, int64_t panel) {
    return sums + panel * chunk.padded_rows * kPanelOutputs;
  }

  // Is every byte of W read once, by one block?
  bool Streams(const RowChunk& chunk) const {
    return chunk.num_blocks == 1 && chunk.rows <= kernels_.one_pass_rows;
  }

  // sums[panel - begin] = rows of the chunk times panels [begin, end) of w.
  void Multiply(const RowChunk& chunk, const CpuPackedMatrix& w, int64_t begin,
                int64_t end, float* sums) const {
    const int64_t num_steps = w.num_steps();
    const int64_t block_steps = Streams(chunk) ? num_steps : kBlockSteps;
    int64_t step = 0;
    do {
      const int64_t steps = std::min(block_steps, num_steps - step);
      for (int64_t panel = begin; panel < end; ++panel) {
        MultiplyBlocks(chunk, w, panel, step, steps,
                       PanelSums(chunk, sums, panel - begin));
      }
      step += steps;
    } while (step < num_steps);
  }

  void MultiplyBlocks(const RowChunk& chunk, const CpuPackedMatrix& w,
                      int64_t panel, int64_t step, int64_t steps,
                      float* sums) const {
    const int64_t num_blocks = chunk.num_blocks;
    BlockProduct product;
    product.b = w.panel(panel) + step * kStepBytes;
    product.steps = steps;
    product.accumulate = step > 0;
    // A streaming chunk fetches the panel a fixed distance ahead. The blocks of
    // others share out what follows this part of the panel.
    product.prefetch_stride = kStepBytes / num_blocks;
    const int64_t ahead = Streams(chunk) ? kPrefetchBytes : steps * kStepBytes;
    for (int64_t b = 0; b < num_blocks; ++b) {
      const RowBlock& block = plan_.blocks[chunk.first_block + b];
      const int64_t padded = (block.rows + kernels_.row_quantum - 1) /
                             kernels_.row_quantum * kernels_.row_quantum;
      product.a =
          packed_rows_ + block.a_offset + step * padded * kernels_.a_step_bytes;
      product.c = sums + block.c_offset * kPanelOutputs;
      product.rows = block.rows;
      product.prefetch =
          product.b + ahead + b * steps * product.prefetch_stride;
      kernels_.multiply(product);
    }
  }

  void RunSwiGlu(const RowChunk& chunk, const CpuPackedMatrix& w, int64_t begin,
                 int64_t end, float* sums) const {
    // Up columns of gate panel p start at F + 32 p, which need not be the start
    // of a panel.
    const int64_t up_begin = (width_ + begin * kPanelOutputs) / kPanelOutputs;
    const int64_t last_up = width_ + std::min(end * kPanelOutputs, width_) - 1;
    const int64_t up_end = last_up / kPanelOutputs + 1;
    float* up = PanelSums(chunk, sums, end - begin);
    Multiply(chunk, w, begin, end, sums);
    Multiply(chunk, w, up_begin, up_end, up);
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
      StorePanel(chunk, panel, gate);
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

  void StorePanel(const RowChunk& chunk, int64_t panel,
                  const float* sums) const {
    const int64_t column = panel * kPanelOutputs;
    const int64_t count = std::min(kPanelOutputs, width_ - column);
    for (int b = 0; b < chunk.num_blocks; ++b) {
      const RowBlock& block = plan_.blocks[chunk.first_block + b];
      for (int64_t row = 0; row < block.rows; ++row) {
        const int64_t at = (block.row_begin + row) * width_ + column;
        StoreRow(sums + (block.c_offset + row) * kPanelOutputs, count, at);
      }
    }
  }

  void StoreRow(const float* sums, int64_t count, int64_t at) const {
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
    } else {
      std::memcpy(out, sums, count * sizeof(float));
    }
  }

  const Call& call_;
  const GemmPlan& plan_;
  const std::byte* const packed_rows_;
  GemmWorkspace& workspace_;
  const GemmKernels& kernels_;
  const int64_t width_;  // columns of out
};

void PackAllRows(const Call& call, const GemmPlan& plan, int64_t num_steps,
                 std::byte* packed, GemmWorkspace& workspace) {
  const GemmKernels& kernels = workspace.kernels(call.x.dtype());
  const int64_t k = call.x.dim(1);
  const std::byte* x = static_cast<const std::byte*>(call.x.data());
  const auto pack = [&](int64_t i, int /*thread*/) {
    const RowBlock& block = plan.blocks[i];
    kernels.pack_rows(x + block.row_begin * k * SizeOf(call.x.dtype()),
                      block.rows, k, num_steps, packed + block.a_offset);
  };
  const int64_t num_blocks = static_cast<int64_t>(plan.blocks.size());
  if (plan.packed_bytes > kSerialPackBytes) {
    workspace.pool().ParallelFor(num_blocks, pack);
  } else {
    for (int64_t i = 0; i < num_blocks; ++i) pack(i, 0);
  }
}

absl::Status Run(const Call& call, absl::Span<const int64_t> row_offsets,
                 GemmWorkspace& workspace) {
  if (call.w.empty() || call.out.dim(1) == 0) return absl::OkStatus();
  const CpuPackedMatrix& w = Cast(*call.w[0]);
  const GemmKernels& kernels = workspace.kernels(call.x.dtype());
  const int64_t num_panels =
      (call.out.dim(1) + kPanelOutputs - 1) / kPanelOutputs;
  const GemmPlan plan = MakeGemmPlan(
      kernels, row_offsets, w.num_steps(), num_panels,
      w.panel_bytes() * (call.swiglu ? 2 : 1), workspace.pool().num_threads());
  if (plan.items.empty()) return absl::OkStatus();

  // Gate panels, up panels and one more where up columns straddle two.
  const int64_t sum_panels = call.swiglu ? 2 * plan.max_run + 1 : plan.max_run;
  OCTET_RETURN_IF_ERROR(workspace.ReserveSums(
      sum_panels * plan.max_padded_rows * kPanelOutputs * sizeof(float)));
  OCTET_ASSIGN_OR_RETURN(std::byte * packed,
                         workspace.PackedRows(plan.packed_bytes));
  PackAllRows(call, plan, w.num_steps(), packed, workspace);
  const Runner runner(call, plan, packed, workspace);
  workspace.pool().ParallelFor(
      static_cast<int64_t>(plan.items.size()),
      [&](int64_t i, int thread) { runner.RunItem(plan.items[i], thread); });
  return absl::OkStatus();
}

}  // namespace

const GemmKernels& GemmKernelsFor(Isa isa, DType dtype) {
  const bool f32 = dtype == DType::kF32;
  switch (isa) {
    case Isa::kAvx2:
      return f32 ? kAvx2F32Kernels : kAvx2Bf16Kernels;
    case Isa::kAvx512:
      return f32 ? kAvx512F32Kernels : kAvx512Bf16Kernels;
    case Isa::kAvx512Bf16:
      return f32 ? kAvx512F32Kernels : kAvx512DotBf16Kernels;
    case Isa::kAmx:
      break;
  }
  return f32 ? kAvx512F32Kernels : kAmxBf16Kernels;
}

const EpilogueKernels& EpilogueKernelsFor(Isa isa) {
  return isa == Isa::kAvx2 ? kAvx2Epilogue : kAvx512Epilogue;
}

GemmWorkspace::GemmWorkspace(Isa isa, ThreadPool* pool)
    : GemmWorkspace(GemmKernelsFor(isa, DType::kF32),
                    GemmKernelsFor(isa, DType::kBF16), EpilogueKernelsFor(isa),
                    pool) {}

GemmWorkspace::GemmWorkspace(const GemmKernels& f32, const GemmKernels& bf16,
                             const EpilogueKernels& epilogue, ThreadPool* pool)
    : f32_(f32),
      bf16_(bf16),
      epilogue_(epilogue),
      pool_(pool),
      sums_(pool->num_threads()) {}

absl::StatusOr<std::byte*> GemmWorkspace::PackedRows(size_t num_bytes) {
  if (packed_rows_.size_bytes() < num_bytes) {
    OCTET_ASSIGN_OR_RETURN(packed_rows_, AlignedMemory::Allocate(num_bytes));
  }
  return static_cast<std::byte*>(packed_rows_.data());
}

absl::Status GemmWorkspace::ReserveSums(size_t num_bytes) {
  for (AlignedMemory& sums : sums_) {
    if (sums.size_bytes() >= num_bytes) continue;
    OCTET_ASSIGN_OR_RETURN(sums, AlignedMemory::Allocate(num_bytes));
  }
  return absl::OkStatus();
}

absl::Status Gemm(ConstTensor x, const PackedMatrix& w, bool accumulate,
                  Tensor out, GemmWorkspace& workspace) {
  const PackedMatrix* const matrices[] = {&w};
  const int64_t row_offsets[] = {0, x.dim(0)};
  Call call;
  call.x = x;
  call.w = matrices;
  call.accumulate = accumulate;
  call.out = out;
  return Run(call, row_offsets, workspace);
}

absl::Status GroupedGemm(ConstTensor x, absl::Span<const PackedMatrix* const> w,
                         absl::Span<const int64_t> row_offsets, Tensor out,
                         GemmWorkspace& workspace) {
  Call call;
  call.x = x;
  call.w = w;
  call.out = out;
  return Run(call, row_offsets, workspace);
}

absl::Status GroupedGemmSwiGlu(ConstTensor x,
                               absl::Span<const PackedMatrix* const> w13,
                               absl::Span<const int64_t> row_offsets,
                               Tensor out, GemmWorkspace& workspace) {
  Call call;
  call.x = x;
  call.w = w13;
  call.out = out;
  call.swiglu = true;
  return Run(call, row_offsets, workspace);
}

}  // namespace octet::cpu
