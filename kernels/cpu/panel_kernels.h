// What an instruction set contributes to filling panels (packed_matrix.h) that
// are not in memory as such: transposed weights and activations.
//
// Internal to kernels/cpu.
#ifndef OCTET_KERNELS_CPU_PANEL_KERNELS_H_
#define OCTET_KERNELS_CPU_PANEL_KERNELS_H_

#include <cstddef>
#include <cstdint>

namespace octet::cpu {

enum class Isa;  // kernels/cpu/isa.h, kept out of the per-instruction-set files

// Columns of a row-major matrix whose rows become steps.
struct ColumnSource {
  const void* data = nullptr;  // first column of the first row
  int64_t stride = 0;          // elements from row to row
  int columns = 0;
  int64_t rows = 0;  // from `data` on; what lies behind reads as zero
};

struct PanelKernels {
  // Steps of a panel from up to 32 columns: `steps` times 32 f32, or 32 pairs
  // of bf16 from two rows each. Missing columns are zero.
  void (*fill_f32)(const ColumnSource& source, int64_t steps, std::byte* to);
  void (*fill_bf16)(const ColumnSource& source, int64_t steps, std::byte* to);
  // 32 outputs by 32 inputs of a panel, as 32 inputs by 32 outputs of a panel
  // of the transpose: 4 KiB of f32 in 32 steps, of which `inputs` are there
  // and the others zero; 2 KiB of bf16 in 16 steps. `to` is 64-byte aligned.
  void (*transpose_f32)(const std::byte* from, int inputs, std::byte* to);
  void (*transpose_bf16)(const std::byte* from, std::byte* to);
  // `pairs` pairs of inputs of a panel from NF4 codes [pairs][32], the even
  // input in the lower half of a byte: level[code] absmax[output] in f32, as
  // 2 `pairs` steps of f32 or `pairs` steps of bf16. absmax [32] is 64-byte
  // aligned, as is `to`.
  void (*dequantize_nf4_f32)(const uint8_t* codes, const float* absmax,
                             int64_t pairs, std::byte* to);
  void (*dequantize_nf4_bf16)(const uint8_t* codes, const float* absmax,
                              int64_t pairs, std::byte* to);
};

// REQUIRES: the processor runs `isa` (SupportedIsas).
const PanelKernels& PanelKernelsFor(Isa isa);

// Defined in panel_avx2.cc and panel_avx512.cc.
extern const PanelKernels kAvx2Panels;
extern const PanelKernels kAvx512Panels;

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_PANEL_KERNELS_H_
