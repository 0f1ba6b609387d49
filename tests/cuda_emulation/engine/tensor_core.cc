// mma.sync and ldmatrix, once per warp.

#include "tests/cuda_emulation/include/cuda_emu/tensor_core.h"

#include <cstdint>

#include "tests/cuda_emulation/engine/block.h"
#include "tests/cuda_emulation/engine/device_language.h"
#include "tests/cuda_emulation/runtime/memory.h"

namespace cuda_emu {
namespace {

constexpr int kM = 16;
constexpr int kN = 8;
constexpr int kK = 16;

// The two bf16 numbers of a register.
float Low(uint32_t pair) { return __uint_as_float(pair << 16); }
float High(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

}  // namespace

void MmaBf16(uint32_t lanes, const void* const* in, void* const* out) {
  if (lanes != kFullWarp) return;
  float a[kM][kK];
  float b[kK][kN];
  float c[kM][kN];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& f = *static_cast<const MmaIn*>(in[lane]);
    const int g = lane / 4;
    const int t = 2 * (lane % 4);
    for (int half = 0; half < 2; ++half) {
      for (int row = 0; row < 2; ++row) {
        const uint32_t pair = f.a[2 * half + row];
        a[g + 8 * row][t + 8 * half] = Low(pair);
        a[g + 8 * row][t + 8 * half + 1] = High(pair);
      }
      b[t + 8 * half][g] = Low(f.b[half]);
      b[t + 8 * half + 1][g] = High(f.b[half]);
      c[g + 8 * half][t] = f.c[2 * half];
      c[g + 8 * half][t + 1] = f.c[2 * half + 1];
    }
  }
  for (int i = 0; i < kM; ++i) {
    for (int k = 0; k < kK; ++k) {
      for (int j = 0; j < kN; ++j) c[i][j] += a[i][k] * b[k][j];
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    auto& o = *static_cast<MmaOut*>(out[lane]);
    const int g = lane / 4;
    const int t = 2 * (lane % 4);
    for (int half = 0; half < 2; ++half) {
      o.d[2 * half] = c[g + 8 * half][t];
      o.d[2 * half + 1] = c[g + 8 * half][t + 1];
    }
  }
}

void CheckLdMatrixRow(const void* row, const Loc& where) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) {
    ReportInKernel("ldmatrix from a misaligned row", where);
    KillKernel();
  }
  if (IsDevice(row)) {
    ReportInKernel("ldmatrix from global memory", where);
    KillKernel();
  }
  NoteRead(row, 16);
}

void LdMatrixFunction(uint32_t lanes, const void* const* in, void* const* out) {
  if (lanes != kFullWarp) return;
  const auto& shape = *static_cast<const LdMatrixIn*>(in[0]);
  for (int matrix = 0; matrix < shape.matrices; ++matrix) {
    const uint16_t* rows[8];
    for (int r = 0; r < 8; ++r) {
      rows[r] = static_cast<const uint16_t*>(
          static_cast<const LdMatrixIn*>(in[8 * matrix + r])->row);
    }
    for (int lane = 0; lane < 32; ++lane) {
      const int i = lane / 4;
      const int j = 2 * (lane % 4);
      const uint32_t low = shape.transposed ? rows[j][i] : rows[i][j];
      const uint32_t high = shape.transposed ? rows[j + 1][i] : rows[i][j + 1];
      static_cast<LdMatrixOut*>(out[lane])->r[matrix] = low | high << 16;
    }
  }
}

}  // namespace cuda_emu
