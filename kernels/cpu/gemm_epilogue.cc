#include "kernels/cpu/gemm_epilogue.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/elements.h"
#include "kernels/cpu/packed_matrix.h"

namespace octet::cpu {
namespace {

// An f32 result larger than this is written past the caches.
constexpr size_t kStreamOutBytes = size_t{4} << 20;
// Rows of `out` fetched ahead where it is added to.
constexpr int64_t kOutRowsAhead = 8;

int64_t PanelFloats(const RowChunk& chunk) {
  return chunk.padded_rows * kPanelOutputs;
}

// Elements [at, at + count), to be changed.
void Fetch(const Tensor& tensor, int64_t at, int64_t count) {
  const int64_t size = static_cast<int64_t>(SizeOf(tensor.dtype()));
  const char* from = static_cast<const char*>(tensor.data()) + at * size;
  for (int64_t i = 0; i < count * size; i += kCacheLine) {
    __builtin_prefetch(from + i, /*rw=*/1);
  }
}

// 32 f32, of which `count` are written at element `at` of an f32 or bf16
// tensor.
void StoreElements(const EpilogueKernels& kernels, const float* from,
                   int64_t count, Tensor to, int64_t at) {
  if (to.dtype() == DType::kF32) {
    std::memcpy(static_cast<float*>(to.data()) + at, from,
                count * sizeof(float));
    return;
  }
  BF16* out = static_cast<BF16*>(to.data()) + at;
  if (count == kPanelOutputs) {
    kernels.to_bf16(from, out, kPanelOutputs);
    return;
  }
  BF16 rounded[kPanelOutputs];
  kernels.to_bf16(from, rounded, kPanelOutputs);
  std::memcpy(out, rounded, count * sizeof(BF16));
}

}  // namespace

GemmEpilogue::GemmEpilogue(const GemmCall& call, const GemmPlan& plan,
                           const GemmWorkspace& workspace)
    : call_(call),
      plan_(plan),
      workspace_(workspace),
      width_(OutWidth(call)),
      streams_out_(call.a_transposed && !call.accumulate &&
                   !call.out_transposed &&
                   call.out.num_bytes() > kStreamOutBytes) {}

PanelRun GemmEpilogue::UpPanels(const PanelRun& run) const {
  const int64_t last = width_ + std::min(run.end * kPanelOutputs, width_) - 1;
  return {(width_ + run.begin * kPanelOutputs) / kPanelOutputs,
          last / kPanelOutputs + 1};
}

void GemmEpilogue::SwiGlu(const RowChunk& chunk, const PanelRun& run,
                          float* gate, float* up) const {
  if (width_ % kPanelOutputs != 0) AlignUp(chunk, run, up);
  if (call_.hidden.data() != nullptr) {
    KeepHidden(chunk, run, gate, 0);
    KeepHidden(chunk, run, up, width_);
  }
  workspace_.epilogue().silu_mul(gate, up, run.count() * PanelFloats(chunk));
}

// Up columns that straddle two panels, of which the second may not exist.
void GemmEpilogue::AlignUp(const RowChunk& chunk, const PanelRun& run,
                           float* up) const {
  const int64_t shift = width_ % kPanelOutputs;
  const int64_t kept = kPanelOutputs - shift;
  const int64_t num_panels = UpPanels(run).count();
  for (int64_t panel = 0; panel < run.count(); ++panel) {
    float* row = up + panel * PanelFloats(chunk);
    for (int64_t i = 0; i < chunk.padded_rows; ++i, row += kPanelOutputs) {
      std::memmove(row, row + shift, kept * sizeof(float));
      if (panel + 1 < num_panels) {
        std::memcpy(row + kept, row + PanelFloats(chunk),
                    shift * sizeof(float));
      } else {
        std::fill(row + kept, row + kPanelOutputs, 0.0f);
      }
    }
  }
}

void GemmEpilogue::KeepHidden(const RowChunk& chunk, const PanelRun& run,
                              const float* sums, int64_t column) const {
  for (int b = 0; b < chunk.num_blocks; ++b) {
    const RowBlock& block = plan_.blocks[chunk.first_block + b];
    for (int64_t row = 0; row < block.rows; ++row) {
      const float* from = sums + (block.c_offset + row) * kPanelOutputs;
      const int64_t at = (block.row_begin + row) * 2 * width_ + column;
      for (int64_t panel = run.begin; panel < run.end; ++panel) {
        const int64_t begin = panel * kPanelOutputs;
        StoreElements(workspace_.epilogue(), from,
                      std::min(kPanelOutputs, width_ - begin), call_.hidden,
                      at + begin);
        from += PanelFloats(chunk);
      }
    }
  }
}

void GemmEpilogue::Store(const RowChunk& chunk, const PanelRun& run,
                         float* sums) const {
  for (int b = 0; b < chunk.num_blocks; ++b) {
    const RowBlock& block = plan_.blocks[chunk.first_block + b];
    if (call_.out_transposed) {
      StoreColumns(block, chunk, run, sums);
      continue;
    }
    for (int64_t i = 0; i < block.rows; ++i) {
      const int64_t row = block.row_begin + i;
      if (row + kOutRowsAhead < chunk.row_begin + chunk.rows) {
        FetchAhead(row + kOutRowsAhead, run);
      }
      float* from = sums + (block.c_offset + i) * kPanelOutputs;
      for (int64_t panel = run.begin; panel < run.end; ++panel) {
        const int64_t column = panel * kPanelOutputs;
        const int64_t count = std::min(kPanelOutputs, width_ - column);
        if (call_.swiglu_backward != nullptr) {
          StoreGradient(from, row, column, count);
        } else {
          StoreRow(from, count, row * width_ + column);
        }
        from += PanelFloats(chunk);
      }
    }
  }
}

// The rows of a block side by side, column by column.
void GemmEpilogue::StoreColumns(const RowBlock& block, const RowChunk& chunk,
                                const PanelRun& run, const float* sums) const {
  float* out = static_cast<float*>(call_.out.data());
  const float* from = sums + block.c_offset * kPanelOutputs;
  for (int64_t panel = run.begin; panel < run.end; ++panel) {
    const int64_t column = panel * kPanelOutputs;
    const int64_t count = std::min(kPanelOutputs, width_ - column);
    for (int64_t j = 0; j < count; ++j) {
      float* to = out + (column + j) * call_.out.dim(1) + block.row_begin;
      for (int64_t i = 0; i < block.rows; ++i) {
        const float value = call_.scale * from[i * kPanelOutputs + j];
        to[i] = call_.accumulate ? to[i] + value : value;
      }
    }
    from += PanelFloats(chunk);
  }
}

// What Store will read of a row's part in the result.
void GemmEpilogue::FetchAhead(int64_t row, const PanelRun& run) const {
  const int64_t column = run.begin * kPanelOutputs;
  const int64_t count = run.count() * kPanelOutputs;
  if (call_.swiglu_backward != nullptr) {
    const int64_t gate = row * 2 * width_ + column;
    Fetch(call_.hidden, gate, count);
    Fetch(call_.hidden, gate + width_, count);
  } else if (call_.accumulate) {
    Fetch(call_.out, row * width_ + column, count);
  }
}

void GemmEpilogue::StoreRow(float* sums, int64_t count, int64_t at) const {
  if (call_.scale != 1.0f) {
    for (int64_t i = 0; i < kPanelOutputs; ++i) sums[i] *= call_.scale;
  }
  float* out = static_cast<float*>(call_.out.data()) + at;
  if (call_.accumulate) {
    for (int64_t i = 0; i < count; ++i) out[i] += sums[i];
  } else if (streams_out_ && count == kPanelOutputs &&
             reinterpret_cast<uintptr_t>(out) % kCacheLine == 0) {
    workspace_.epilogue().stream(sums, out, kPanelOutputs);
  } else {
    StoreElements(workspace_.epilogue(), sums, count, call_.out, at);
  }
}

void GemmEpilogue::StoreGradient(const float* sums, int64_t row, int64_t column,
                                 int64_t count) const {
  const int64_t gate = row * 2 * width_ + column;
  const int64_t up = gate + width_;
  const Tensor& h = call_.hidden;
  call_.swiglu_backward->swiglu_backward(
      ElementsAt(ConstTensor(h), gate), ElementsAt(ConstTensor(h), up),
      {sums, false}, count, ElementsAt(h, gate), ElementsAt(h, up),
      call_.out.data() == nullptr
          ? Elements{}
          : ElementsAt(call_.out, row * width_ + column));
}

}  // namespace octet::cpu
