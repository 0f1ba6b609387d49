#include "kernels/cpu/panel_source.h"

#include <algorithm>

#include "kernels/cpu/isa.h"

namespace octet::cpu {
namespace {

constexpr int64_t kTile = kPanelOutputs;  // outputs and inputs

const CpuMatrix& Cast(const PackedMatrix& matrix) {
  return static_cast<const CpuMatrix&>(matrix);
}

}  // namespace

const PanelKernels& PanelKernelsFor(Isa isa) {
  return isa == Isa::kAvx2 ? kAvx2Panels : kAvx512Panels;
}

WeightPanels::WeightPanels(absl::Span<const PackedMatrix* const> w,
                           const PanelKernels& kernels)
    : w_(w), kernels_(kernels), resident_(true) {
  for (const PackedMatrix* matrix : w) {
    resident_ = resident_ && Cast(*matrix).resident();
  }
}

const std::byte* WeightPanels::Block(int group, int64_t panel, int64_t step,
                                     int64_t steps, std::byte* scratch) const {
  return Cast(*w_[group]).Block(panel, step, steps, kernels_, scratch);
}

const std::byte* TransposedWeightPanels::Block(int group, int64_t panel,
                                               int64_t step, int64_t steps,
                                               std::byte* scratch) const {
  const CpuMatrix& w = Cast(*w_[group]);
  const int64_t per_step = InputsPerStep(w.dtype());
  const int64_t tile_steps = kTile / per_step;
  alignas(64) std::byte tile[kTile * kStepBytes];
  const int inputs = static_cast<int>(std::min(kTile, w.k() - panel * kTile));
  for (int64_t done = 0; done < steps; done += tile_steps) {
    const int64_t source_panel = (step + done) * per_step / kTile;
    const std::byte* from =
        w.Block(source_panel, panel * tile_steps, tile_steps, kernels_, tile);
    std::byte* to = scratch + done * kStepBytes;
    if (w.dtype() == DType::kF32) {
      kernels_.transpose_f32(from, inputs, to);
    } else {
      kernels_.transpose_bf16(from, to);
    }
  }
  return scratch;
}

void TransposedWeightPanels::FetchAhead(int group, int64_t panel, int64_t step,
                                        int64_t begin, int64_t end) const {
  const CpuMatrix& w = Cast(*w_[group]);
  if (!w.resident()) return;
  const int64_t per_step = InputsPerStep(w.dtype());
  const int64_t tile_steps = kTile / per_step;
  const int64_t tile_bytes = tile_steps * kStepBytes;
  while (begin < end) {
    const int64_t tile = begin / tile_bytes;
    const std::byte* from =
        w.Block(step * per_step / kTile + tile, panel * tile_steps, tile_steps,
                kernels_, nullptr) -
        tile * tile_bytes;
    const int64_t tile_end = std::min(end, (tile + 1) * tile_bytes);
    for (; begin < tile_end; begin += kCacheLine) {
      __builtin_prefetch(from + begin, /*rw=*/0, /*locality=*/2);
    }
  }
}

const std::byte* ActivationPanels::Block(int /*group*/, int64_t panel,
                                         int64_t step, int64_t steps,
                                         std::byte* scratch) const {
  const int64_t width = x_.dim(1);
  const int64_t column = panel * kPanelOutputs;
  const int64_t row = step * InputsPerStep(x_.dtype());
  ColumnSource source;
  source.data = static_cast<const std::byte*>(x_.data()) +
                (row * width + column) * SizeOf(x_.dtype());
  source.stride = width;
  source.columns = static_cast<int>(std::min(kPanelOutputs, width - column));
  source.rows = x_.dim(0) - row;
  if (x_.dtype() == DType::kF32) {
    kernels_.fill_f32(source, steps, scratch);
  } else {
    kernels_.fill_bf16(source, steps, scratch);
  }
  return scratch;
}

void ActivationPanels::FetchAhead(int /*group*/, int64_t panel, int64_t step,
                                  int64_t begin, int64_t end) const {
  const int64_t size = static_cast<int64_t>(SizeOf(x_.dtype()));
  const int64_t per_step = InputsPerStep(x_.dtype());
  const int64_t row_bytes = x_.dim(1) * size;
  const int64_t bytes =
      std::min(kPanelOutputs, x_.dim(1) - panel * kPanelOutputs) * size;
  const int64_t row_end =
      std::min(x_.dim(0), (step + end / kStepBytes) * per_step);
  const std::byte* column =
      static_cast<const std::byte*>(x_.data()) + panel * kPanelOutputs * size;
  for (int64_t row = (step + begin / kStepBytes) * per_step; row < row_end;
       ++row) {
    for (int64_t i = 0; i < bytes; i += kCacheLine) {
      __builtin_prefetch(column + row * row_bytes + i, /*rw=*/0,
                         /*locality=*/2);
    }
  }
}

}  // namespace octet::cpu
