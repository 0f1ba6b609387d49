// Emulated bodies of the wrappers in kernels/cuda/ptx.h: mma.sync and ldmatrix
// as meetings of the whole warp.
#ifndef CUDA_EMU_TENSOR_CORE_H_
#define CUDA_EMU_TENSOR_CORE_H_

#include <cuda_emu/core.h>
#include <cuda_emu/intrinsics.h>

#include <cstdint>
#include <cstring>

namespace cuda_emu {

inline constexpr uint32_t kFullWarp = 0xffffffffu;

struct MmaIn {
  uint32_t a[4];
  uint32_t b[2];
  float c[4];
};
struct MmaOut {
  float d[4];
};

// D[16, 8] = A[16, 16] B[16, 8] + C, bf16 inputs, f32 sums. Fragments as in the
// PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type": of
// lane l, row l / 4 and columns 2 (l % 4), +1. Registers hold the lower column
// in the lower half.
void MmaBf16(uint32_t lanes, const void* const* in, void* const* out);

CUDA_EMU_NOINSTR inline void Mma(float (&d)[4], const uint32_t (&a)[4],
                                 const uint32_t (&b)[2], const Loc& where) {
  MmaIn in;
  MmaOut out;
  std::memcpy(in.a, a, sizeof(in.a));
  std::memcpy(in.b, b, sizeof(in.b));
  std::memcpy(in.c, d, sizeof(in.c));
  WarpMeet(WarpOp::kMma, kFullWarp, &in, &out, &MmaBf16, where);
  std::memcpy(d, out.d, sizeof(out.d));
}

// Lane 8 i + r gives the address of row r (16 bytes) of matrix i; lane l
// receives of each matrix row l / 4, elements 2 (l % 4) and +1 (transposed:
// column l / 4, rows 2 (l % 4) and +1).
struct LdMatrixIn {
  const void* row;
  int matrices;
  bool transposed;
};
struct LdMatrixOut {
  uint32_t r[4];
};
void LdMatrixFunction(uint32_t lanes, const void* const* in, void* const* out);
void CheckLdMatrixRow(const void* row, const Loc& where);

template <int kMatrices>
CUDA_EMU_NOINSTR inline void LdMatrix(uint32_t (&r)[kMatrices], const void* row,
                                      bool transposed, const Loc& where) {
  if (g_thread->lane < 8 * kMatrices) CheckLdMatrixRow(row, where);
  const LdMatrixIn in{row, kMatrices, transposed};
  LdMatrixOut out;
  WarpMeet(WarpOp::kLdMatrix, kFullWarp, &in, &out, &LdMatrixFunction, where);
  std::memcpy(r, out.r, sizeof(r));
}

}  // namespace cuda_emu

#endif  // CUDA_EMU_TENSOR_CORE_H_
