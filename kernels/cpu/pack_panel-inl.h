// Bodies of TrainingKernels::pack_panel_*, included once per instruction set:
// 32 rows of a matrix become a panel (kernels/cpu/packed_matrix.h). A step of a
// panel is a column of the rows, or of bf16 pairs of them, so both are
// transpositions of 4-byte elements.
#ifndef OCTET_KERNELS_CPU_PACK_PANEL_INL_H_
#define OCTET_KERNELS_CPU_PACK_PANEL_INL_H_

#include <cstdint>

#include "kernels/cpu/vector_math.h"

namespace octet::cpu {
namespace {

constexpr int64_t kPanelRows = 32;

// read(row, step, count): elements of `count` (1 .. kLanes) steps of a row.
template <typename Read>
[[gnu::always_inline]] inline void PackPanel(int64_t num_steps, float* panel,
                                             const Read& read) {
  for (int64_t step = 0; step < num_steps; step += kLanes) {
    const int64_t left = num_steps - step;
    const int64_t count = left < kLanes ? left : kLanes;
    for (int64_t row = 0; row < kPanelRows; row += kLanes) {
      F32 rows[kLanes];
      for (int i = 0; i < kLanes; ++i) rows[i] = read(row + i, step, count);
      float* to = panel + step * kPanelRows + row;
      if (count == kLanes) {
        StoreTransposed(rows, to, kPanelRows);
        continue;
      }
      float turned[kLanes * kLanes];
      StoreTransposed(rows, turned, kLanes);
      for (int64_t s = 0; s < count; ++s) {
        Store(to + s * kPanelRows, Load(turned + s * kLanes));
      }
    }
  }
}

void PackPanelF32(const float* rows, int64_t k, float* panel) {
  PackPanel(k, panel, [&](int64_t row, int64_t step, int64_t count) {
    return LoadUpTo(rows + row * k + step, count);
  });
}

void PackPanelBF16(const float* rows, int64_t k, uint16_t* panel) {
  const auto read = [&](int64_t row, int64_t step, int64_t) {
    const float* from = rows + row * k + 2 * step;
    const int64_t left = k - 2 * step;  // an odd k's last pair ends with zero
    const F32 second =
        left > kLanes ? LoadUpTo(from + kLanes, left - kLanes) : Set(0.0f);
    return JoinBF16(LoadUpTo(from, left), second);
  };
  PackPanel((k + 1) / 2, reinterpret_cast<float*>(panel), read);
}

}  // namespace
}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_PACK_PANEL_INL_H_
