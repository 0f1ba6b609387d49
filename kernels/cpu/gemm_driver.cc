#include "kernels/cpu/gemm_driver.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

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
  const int64_t per_step = InputsPerStep(dtype);
  const int64_t steps = (rank + per_step - 1) / per_step;
  return (steps + kernels.step_quantum - 1) / kernels.step_quantum *
         kernels.step_quantum;
}

// Counts what is left of a chunk's items; others wait for none.
class Countdown {
 public:
  void Set(int count) { left_.store(count, std::memory_order_relaxed); }
  void Done() { left_.fetch_sub(1, std::memory_order_acq_rel); }
  void Await() const {
    for (int round = 0; left_.load(std::memory_order_acquire) > 0; ++round) {
      if (round < kSpins) {
        __builtin_ia32_pause();
      } else {
        std::this_thread::yield();
      }
    }
  }

 private:
  static constexpr int kSpins = 1000;
  std::atomic<int> left_{0};
};

// Multiplies blocks of A with runs of panels.
class Multiplier {
 public:
  Multiplier(const GemmPlan& plan, const GemmKernels& kernels,
             GemmWorkspace& workspace)
      : plan_(plan), kernels_(kernels), workspace_(workspace) {}

  // sums[panel - run.begin] = A of the chunk times that panel, or added to.
  void Multiply(const Term& term, const RowChunk& chunk, const std::byte* a,
                const PanelRun& run, bool accumulate, int thread,
                float* sums) const {
    const int64_t block_steps =
        Streams(term, chunk) ? term.steps.count : kBlockSteps;
    int64_t step = 0;
    do {
      const int64_t steps = std::min(block_steps, term.steps.count - step);
      for (int64_t panel = run.begin; panel < run.end; ++panel) {
        const bool last = panel + 1 == run.end;
        const PanelBlock next = {last ? run.begin : panel + 1,
                                 step + (last ? steps : 0)};
        BlockProduct product;
        product.a = a;
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

  // product: of the chunk's A and C. `next` is what the next call will multiply
  // with.
  void MultiplyBlocks(const Term& term, const RowChunk& chunk, int64_t step,
                      const PanelBlock& next, BlockProduct product) const {
    const int64_t num_blocks = chunk.num_blocks;
    const std::byte* a = product.a;
    const std::byte* b_block = product.b;
    float* sums = product.c;
    // A streaming chunk fetches the panel a fixed distance ahead. The blocks of
    // others share out what follows this part of the panel. Of a panel that is
    // filled block by block nothing follows.
    const bool resident = term.panels->resident();
    product.prefetch_stride = resident ? kStepBytes / num_blocks : 0;
    int64_t ahead = 0, next_bytes = 0;
    if (resident) {
      ahead =
          Streams(term, chunk) ? kPrefetchBytes : product.steps * kStepBytes;
    } else {
      next_bytes =
          std::min(kBlockSteps, term.steps.count - next.step) * kStepBytes;
    }
    const int64_t share =
        (next_bytes / kCacheLine + num_blocks - 1) / num_blocks * kCacheLine;
    for (int64_t b = 0; b < num_blocks; ++b) {
      if (b * share < next_bytes) {
        term.panels->FetchAhead(chunk.group, next.panel, next.step, b * share,
                                std::min((b + 1) * share, next_bytes));
      }
      const RowBlock& block = plan_.blocks[chunk.first_block + b];
      product.a = a + PackedOffset(kernels_, block, term.steps.first + step);
      product.c = sums + block.c_offset * kPanelOutputs;
      product.rows = block.rows;
      product.prefetch =
          b_block + ahead + b * product.steps * product.prefetch_stride;
      kernels_.multiply(product);
    }
  }

  const GemmPlan& plan_;
  const GemmKernels& kernels_;
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
        multiplier_(plan, kernels_, workspace),
        epilogue_(call, plan, workspace),
        product_{call.panels, {0, num_steps}},
        addition_{call.low_rank ? call.low_rank->up : nullptr,
                  {num_steps, rank_steps}},
        layouts_(plan.chunks.size()),
        products_(plan.chunks.size()) {
    for (size_t c = 0; c < plan.chunks.size(); ++c) {
      layouts_[c].Set(plan.chunks[c].num_layouts);
      products_[c].Set(plan.chunks[c].num_products);
    }
  }

  void Run() {
    workspace_.pool().ParallelFor(
        static_cast<int64_t>(plan_.items.size()),
        [&](int64_t i, int thread) { RunItem(plan_.items[i], thread); });
  }

 private:
  // What an item waits for is the work of items before it, which are running
  // or done.
  void RunItem(const WorkItem& item, int thread) {
    if (item.kind == WorkItem::Kind::kLayOut) {
      if (item.chunk >= plan_.num_slots) {
        products_[item.chunk - plan_.num_slots].Await();
      }
      LayOut(item, thread);
      layouts_[item.chunk].Done();
    } else {
      layouts_[item.chunk].Await();
      MultiplyPanels(item, thread);
      products_[item.chunk].Done();
    }
  }

  std::byte* SlotOf(int chunk) const {
    return packed_ + chunk % plan_.num_slots * plan_.slot_bytes;
  }

  void LayOut(const WorkItem& item, int thread) const {
    const RowChunk& chunk = plan_.chunks[item.chunk];
    std::byte* a = SlotOf(item.chunk);
    const auto blocks = absl::MakeConstSpan(plan_.blocks);
    if (call_.a_transposed) {
      PackColumns(call_.a, call_.a_column, kernels_,
                  blocks.subspan(chunk.first_block, chunk.num_blocks),
                  {item.begin, item.end - item.begin}, a);
      return;
    }
    const auto own =
        blocks.subspan(chunk.first_block + item.begin, item.end - item.begin);
    PackRows(call_.a, kernels_, own, product_.steps, a);
    if (call_.low_rank == nullptr) return;
    if (call_.low_rank->down != nullptr) {
      RowChunk part = chunk;
      part.row_begin = own.front().row_begin;
      part.rows = own.back().row_begin + own.back().rows - part.row_begin;
      part.first_block += static_cast<int>(item.begin);
      part.num_blocks = static_cast<int>(item.end - item.begin);
      MultiplyDown(part, a, thread);
    }
    PackRows(call_.low_rank->u, kernels_, own, addition_.steps, a);
  }

  // u of some blocks, whose rows are in the cache.
  void MultiplyDown(const RowChunk& part, const std::byte* a,
                    int thread) const {
    const LowRankTerm& low_rank = *call_.low_rank;
    const PanelRun run = {0, NumPanels(low_rank.u.dim(1))};
    float* sums = workspace_.Sums(thread);
    kernels_.begin();
    multiplier_.Multiply({low_rank.down, product_.steps}, part, a, run,
                         /*accumulate=*/false, thread, sums);
    kernels_.end();
    GemmCall call;
    call.out = low_rank.u;
    GemmEpilogue(call, plan_, workspace_).Store(part, run, sums);
  }

  void MultiplyPanels(const WorkItem& item, int thread) const {
    const RowChunk& chunk = plan_.chunks[item.chunk];
    const std::byte* a = SlotOf(item.chunk);
    float* sums = workspace_.Sums(thread);
    // Few rows: panel by panel, each read once from end to end. Many: all
    // panels of the run over a part of k, whose rows of A stay in the cache.
    const size_t chunk_bytes =
        chunk.padded_rows * product_.steps.count * kernels_.a_step_bytes;
    int64_t group = item.end - item.begin;
    if (chunk_bytes <= kWholeChunkBytes) {
      group = call_.panels->resident() ? 1 : std::min(group, kFilledGroup);
    }
    kernels_.begin();
    for (int64_t p = item.begin; p < item.end; p += group) {
      const PanelRun run = {p, std::min(p + group, item.end)};
      Multiply(chunk, a, run, thread, sums);
      if (call_.swiglu) {
        float* up = sums + run.count() * chunk.padded_rows * kPanelOutputs;
        Multiply(chunk, a, epilogue_.UpPanels(run), thread, up);
        epilogue_.SwiGlu(chunk, run, sums, up);
      }
      epilogue_.Store(chunk, run, sums);
    }
    epilogue_.End();
    kernels_.end();
  }

  void Multiply(const RowChunk& chunk, const std::byte* a, const PanelRun& run,
                int thread, float* sums) const {
    multiplier_.Multiply(product_, chunk, a, run, /*accumulate=*/false, thread,
                         sums);
    if (addition_.panels != nullptr) {
      multiplier_.Multiply(addition_, chunk, a, run, /*accumulate=*/true,
                           thread, sums);
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
  const Term addition_;                        // without panels: none
  std::vector<Countdown> layouts_, products_;  // of each chunk
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
  shape.a_transposed = call.a_transposed;
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
  OCTET_ASSIGN_OR_RETURN(
      std::byte * packed,
      workspace.PackedRows(plan.num_slots * plan.slot_bytes));
  Runner(call, plan, num_steps, rank_steps, packed, workspace).Run();
  return absl::OkStatus();
}

}  // namespace octet::cpu
