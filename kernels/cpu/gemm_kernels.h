// What an instruction set contributes to the matrix products: how rows of x are
// laid out for it, one block product, and the vector loops around it. gemm.cc
// does the rest (blocking, threads, edges) once for all of them.
//
// Internal to kernels/cpu.
#ifndef OCTET_KERNELS_CPU_GEMM_KERNELS_H_
#define OCTET_KERNELS_CPU_GEMM_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/panel_kernels.h"
#include "kernels/dtype.h"

namespace octet::cpu {

// c[rows, 32] (+)= A B over `steps` steps of one panel (packed_matrix.h).
struct BlockProduct {
  const std::byte* a = nullptr;  // laid out by PackRows
  const std::byte* b = nullptr;  // the panel, from the first step on
  float* c = nullptr;            // [rows rounded up to row_quantum, 32]
  int64_t steps = 0;
  int rows = 0;             // 1..max_rows
  bool accumulate = false;  // c holds the sum of the steps before
  // Two cache lines at `prefetch` + step * prefetch_stride are fetched ahead.
  const std::byte* prefetch = nullptr;
  int64_t prefetch_stride = 0;
};

// The kernels of one instruction set for one compute dtype. Every output is
// summed over k in one fixed order that does not depend on rows or blocking.
struct GemmKernels {
  const char* name;
  int max_rows;       // of one BlockProduct
  int one_pass_rows;  // up to so many, it reads B once from end to end
  int row_quantum;    // rows occupy multiples of this in A and C
  int step_quantum;   // steps are multiples of this
  int a_step_bytes;   // of one row and one step in A

  // Lays out x [rows, k] (row-major, compute dtype) as the A of a block:
  // `steps` steps, zero beyond k and beyond rows.
  void (*pack_rows)(const void* x, int rows, int64_t k, int64_t steps,
                    std::byte* a);
  // The same for x given by its transpose: source.columns rows.
  void (*pack_columns)(const ColumnSource& source, int64_t steps, std::byte* a);
  // Around the products of a work item, on the thread that runs them.
  void (*begin)();
  void (*end)();
  void (*multiply)(const BlockProduct& product);
};

// Elementwise loops over f32; `count` is a multiple of 32.
struct EpilogueKernels {
  // gate[i] = silu(gate[i]) * up[i], silu(a) = a / (1 + exp(-a)); exp to 2 ulp.
  void (*silu_mul)(float* gate, const float* up, int64_t count);
  // Round to nearest, ties to even.
  void (*to_bf16)(const float* from, BF16* to, int64_t count);
  // A copy past the caches to `to`, 64-byte aligned; other threads may see it
  // after stream_end and what orders them with it.
  void (*stream)(const float* from, float* to, int64_t count);
  void (*stream_end)();
};

// REQUIRES: the processor runs `isa` (SupportedIsas).
const GemmKernels& GemmKernelsFor(Isa isa, DType dtype);
const EpilogueKernels& EpilogueKernelsFor(Isa isa);

// Defined in the file of each instruction set, which is compiled for it.
extern const GemmKernels kAvx2F32Kernels;
extern const GemmKernels kAvx2Bf16Kernels;
extern const EpilogueKernels kAvx2Epilogue;
extern const GemmKernels kAvx512F32Kernels;
extern const GemmKernels kAvx512Bf16Kernels;  // widens to f32
extern const EpilogueKernels kAvx512Epilogue;
extern const GemmKernels kAvx512DotBf16Kernels;  // vdpbf16ps
extern const GemmKernels kAmxBf16Kernels;        // tdpbf16ps

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_GEMM_KERNELS_H_
