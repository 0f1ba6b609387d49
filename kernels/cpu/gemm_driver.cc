#include "kernels/cpu/gemm_driver.h"

#include <algorithm>

#include "base/status_macros.h"
#include "kernels/cpu/gemm_epilogue.h"
#include "kernels/cpu/gemm_packing.h"
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
constexpr int64_t kLine = 64;  // bytes of a cache line

// Panels and the steps of A that they multiply.
struct Term {
  const PanelSource* panels;
  StepRange steps;
};

// Steps from `step` on of a panel.
struct PanelBlock {
  int64_t panel;
  int64_t step;
};

// Steps of u's products: few, so that those of zeros count.
int64_t StepsOfRank(const GemmKernels& kernels, DType dtype, int64_t rank) {
  const int64_t steps = dtype == DType::kF32 ? rank : (rank + 1) / 2;
  return (steps + kernels.step_quantum - 1) / kernels.step_quantum *
         kernels.step_quantum;
}

// Multiplies blocks of A with runs of panels.
class Multiplier {
 public:
  Multiplier(const GemmPlan& plan, const GemmKernels& kernels,
             const std::byte* packed_rows, GemmWorkspace& workspace)
      : plan_(plan),
        kernels_(kernels),
        packed_rows_(packed_rows),
        workspace_(workspace) {}

  // sums[panel - run.begin] = rows of the chunk times that panel, or added to.
  void Multiply(const Term& term, const RowChunk& chunk, const PanelRun& run,
                bool accumulate, int thread, float* sums) const {
    const int64_t block_steps =
        Streams(term, chunk) ? term.steps.count : kBlockSteps;
    int64_t step = 0;
    do {
      const int64_t steps = std::min(block_steps, term.steps.count - step);
      for (int64_t panel = run.begin; panel < run.end; ++panel) {
        const bool last = panel + 1 == run.end;
        const PanelBlock next = {last ? run.begin : panel + 1,
                                 last ? step + steps : step};
        BlockProduct product;
        product.b = term.panels->Block(chunk.group, panel, step, steps,
                                       workspace_.PanelBlock(thread));
        product.c =
            sums + (panel - run.begin) * chunk.padded_rows * kPanelOutputs;
        product.steps = steps;
        product.accumulate = accumulate || step > 0;
        MultiplyBlocks(term, chunk, step, next, product);
      }
      step += steps;
    } while (step < term.steps.count);
  }

 private:
  // Is every byte of W read once, by one block?
  bool Streams(const Term& term, const RowChunk& chunk) const {
    return term.panels->resident() && chunk.num_blocks == 1 &&
           chunk.rows <= kernels_.one_pass_rows;
  }

  // `next` is what the next call will multiply with.
  void MultiplyBlocks(const Term& term, const RowChunk& chunk, int64_t step,
                      const PanelBlock& next, BlockProduct product) const {
    const int64_t num_blocks = chunk.num_blocks;
    const std::byte* b_block = product.b;
    float* sums = product.c;
    // A streaming chunk fetches the panel a fixed distance ahead. The blocks of
    // others share out what follows this part of the panel. Of a panel that is
    // filled block by block nothing follows.
    const bool resident = term.panels->resident();
    product.prefetch_stride = resident ? kStepBytes / num_blocks : 0;
    int64_t ahead = 0;
    if (resident) {
      ahead =
          Streams(term, chunk) ? kPrefetchBytes : product.steps * kStepBytes;
    }
    const int64_t next_bytes =
        resident
            ? 0
            : std::min(kBlockSteps, term.steps.count - next.step) * kStepBytes;
    const int64_t share =
        (next_bytes / kLine + num_blocks - 1) / num_blocks * kLine;
    for (int64_t b = 0; b < num_blocks; ++b) {
      if (b * share < next_bytes) {
        term.panels->FetchAhead(chunk.group, next.panel, next.step, b * share,
                                std::min((b + 1) * share, next_bytes));
      }
      const RowBlock& block = plan_.blocks[chunk.first_block + b];
      product.a =
          packed_rows_ + PackedOffset(kernels_, block, term.steps.first + step);
      product.c = sums + block.c_offset * kPanelOutputs;
      product.rows = block.rows;
      product.prefetch =
          b_block + ahead + b * product.steps * product.prefetch_stride;
      kernels_.multiply(product);
    }
  }

  const GemmPlan& plan_;
  const GemmKernels& kernels_;
  const std::byte* const packed_rows_;
  GemmWorkspace& workspace_;
};

// The work of one call, item by item.
class Runner {
 public:
  Runner(const GemmCall& call, const GemmPlan& plan, int64_t num_steps,
         int64_t rank_steps, std::byte* packed, GemmWorkspace& workspace)
      : call_(call),
        plan_(plan),
        packed_(packed),
        workspace_(workspace),
        kernels_(workspace.kernels(call.a.dtype())),
        multiplier_(plan, kernels_, packed, workspace),
        epilogue_(call, plan, workspace),
        product_{call.panels, {0, num_steps}},
        addition_{call.low_rank ? call.low_rank->up : nullptr,
                  {num_steps, rank_steps}} {}

  void Run() const {
    if (call_.a_transposed) {
      PackColumns(call_.a, call_.a_column, plan_, product_.steps.count, packed_,
                  workspace_);
    } else {
      PackRows(call_.a, plan_, product_.steps, packed_, workspace_);
    }
    if (addition_.panels != nullptr) ReadyAddition();
    workspace_.pool().ParallelFor(
        static_cast<int64_t>(plan_.items.size()),
        [&](int64_t i, int thread) { RunItem(plan_.items[i], thread); });
  }

 private:
  // u, unless it is given, and its rows behind those of a.
  void ReadyAddition() const {
    const LowRankTerm& term = *call_.low_rank;
    if (term.down != nullptr) {
      GemmCall call;
      call.out = term.u;
      const GemmEpilogue epilogue(call, plan_, workspace_);
      const PanelRun run = {0, NumPanels(term.u.dim(1))};
      workspace_.pool().ParallelFor(
          static_cast<int64_t>(plan_.chunks.size()),
          [&](int64_t i, int thread) {
            const RowChunk& chunk = plan_.chunks[i];
            float* sums = workspace_.Sums(thread);
            kernels_.begin();
            multiplier_.Multiply({term.down, product_.steps}, chunk, run,
                                 /*accumulate=*/false, thread, sums);
            kernels_.end();
            epilogue.Store(chunk, run, sums);
          });
    }
    PackRows(term.u, plan_, addition_.steps, packed_, workspace_);
  }

  void RunItem(const WorkItem& item, int thread) const {
    const RowChunk& chunk = plan_.chunks[item.chunk];
    float* sums = workspace_.Sums(thread);
    // Few rows: panel by panel, each read once from end to end. Many: all
    // panels of the run over a part of k, whose rows of A stay in the cache.
    const size_t chunk_bytes =
        chunk.padded_rows * product_.steps.count * kernels_.a_step_bytes;
    int64_t group = item.panel_end - item.panel_begin;
    if (chunk_bytes <= kWholeChunkBytes) {
      group = call_.panels->resident() ? 1 : std::min(group, kFilledGroup);
    }
    kernels_.begin();
    for (int64_t p = item.panel_begin; p < item.panel_end; p += group) {
      const PanelRun run = {p, std::min(p + group, item.panel_end)};
      Multiply(chunk, run, thread, sums);
      if (call_.swiglu) {
        float* up = sums + run.count() * chunk.padded_rows * kPanelOutputs;
        Multiply(chunk, epilogue_.UpPanels(run), thread, up);
        epilogue_.SwiGlu(chunk, run, sums, up);
      }
      epilogue_.Store(chunk, run, sums);
    }
    epilogue_.End();
    kernels_.end();
  }

  void Multiply(const RowChunk& chunk, const PanelRun& run, int thread,
                float* sums) const {
    multiplier_.Multiply(product_, chunk, run, /*accumulate=*/false, thread,
                         sums);
    if (addition_.panels != nullptr) {
      multiplier_.Multiply(addition_, chunk, run, /*accumulate=*/true, thread,
                           sums);
    }
  }

  const GemmCall& call_;
  const GemmPlan& plan_;
  std::byte* const packed_;
  GemmWorkspace& workspace_;
  const GemmKernels& kernels_;
  const Multiplier multiplier_;
  const GemmEpilogue epilogue_;
  const Term product_;
  const Term addition_;  // without panels: none
};

}  // namespace

absl::Status RunGemm(const GemmCall& call,
                     absl::Span<const int64_t> row_offsets,
                     GemmWorkspace& workspace) {
  if (OutWidth(call) == 0) return absl::OkStatus();
  const GemmKernels& kernels = workspace.kernels(call.a.dtype());
  const int64_t num_steps = call.panels->num_steps();
  const int64_t rank = call.low_rank ? call.low_rank->u.dim(1) : 0;
  const int64_t rank_steps = StepsOfRank(kernels, call.a.dtype(), rank);
  GemmPlanShape shape;
  shape.num_steps = num_steps + rank_steps;
  shape.num_panels = NumPanels(OutWidth(call));
  shape.sum_panels = call.swiglu ? 2 : 1;
  shape.panel_bytes =
      static_cast<size_t>(num_steps) * kStepBytes * shape.sum_panels;
  const GemmPlan plan =
      MakeGemmPlan(kernels, row_offsets, shape, workspace.pool().num_threads());
  if (plan.items.empty()) return absl::OkStatus();

  // Gate panels, up panels and one more where up columns straddle two.
  const int64_t sum_panels = call.swiglu ? 2 * plan.max_run + 1 : plan.max_run;
  OCTET_RETURN_IF_ERROR(workspace.ReserveSums(
      std::max(sum_panels, NumPanels(rank)) * plan.max_padded_rows *
      kPanelOutputs * sizeof(float)));
  OCTET_ASSIGN_OR_RETURN(std::byte * packed,
                         workspace.PackedRows(plan.packed_bytes));
  Runner(call, plan, num_steps, rank_steps, packed, workspace).Run();
  return absl::OkStatus();
}

}  // namespace octet::cpu
