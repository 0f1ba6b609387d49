// What becomes of the sums of a product: the activation, its gradient, and the
// way into the result. Internal to kernels/cpu.
#ifndef OCTET_KERNELS_CPU_GEMM_EPILOGUE_H_
#define OCTET_KERNELS_CPU_GEMM_EPILOGUE_H_

#include <cstdint>

#include "kernels/cpu/gemm_driver.h"
#include "kernels/cpu/gemm_plan.h"
#include "kernels/cpu/gemm_workspace.h"

namespace octet::cpu {

// Columns of the product.
inline int64_t OutWidth(const GemmCall& call) {
  return call.out.dim(call.out_transposed ? 0 : 1);
}

// Panels [begin, end) of the result.
struct PanelRun {
  int64_t begin = 0;
  int64_t end = 0;

  int64_t count() const { return end - begin; }
};

// Sums are [panel][padded row of the chunk][32] f32. Thread-safe: parts of the
// result that do not overlap may be written at once.
class GemmEpilogue {
 public:
  // Everything outlives it.
  GemmEpilogue(const GemmCall& call, const GemmPlan& plan,
               const GemmWorkspace& workspace);

  // The panels of the up half that belong to gate panels `run`: up columns of
  // panel p start at F + 32 p, which need not be the start of a panel.
  PanelRun UpPanels(const PanelRun& run) const;

  // gate = silu(gate) up, over whole panels; `up` holds UpPanels(run) and is
  // moved to begin where `gate` does.
  void SwiGlu(const RowChunk& chunk, const PanelRun& run, float* gate,
              float* up) const;

  // Row by row: the panels of a run are side by side in memory.
  void Store(const RowChunk& chunk, const PanelRun& run, float* sums) const;

  // After the last Store of an item.
  void End() const {
    if (streams_out_) workspace_.epilogue().stream_end();
  }

 private:
  void AlignUp(const RowChunk& chunk, const PanelRun& run, float* up) const;
  void KeepHidden(const RowChunk& chunk, const PanelRun& run, const float* sums,
                  int64_t column) const;
  void StoreColumns(const RowBlock& block, const RowChunk& chunk,
                    const PanelRun& run, const float* sums) const;
  void FetchAhead(int64_t row, const PanelRun& run) const;
  // Sums of 32 columns, of which `count` are in the result, at its element.
  void StoreRow(float* sums, int64_t count, int64_t at) const;
  // The gradient of columns [column, column + count) of SwiGLU's output.
  void StoreGradient(const float* sums, int64_t row, int64_t column,
                     int64_t count) const;

  const GemmCall& call_;
  const GemmPlan& plan_;
  const GemmWorkspace& workspace_;
  const int64_t width_;     // OutWidth
  const bool streams_out_;  // past the caches
};

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_GEMM_EPILOGUE_H_
