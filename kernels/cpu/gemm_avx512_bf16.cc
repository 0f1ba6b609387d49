// Compiled with -mavx512bf16: only what runs behind a check of the processor
// may stand here.
#include "kernels/cpu/gemm_simd-inl.h"

namespace octet::cpu {
namespace {

// x, W bf16: vdpbf16ps adds both products of a pair to the f32 sum. It rounds
// to nearest and takes denormals as zero, whatever MXCSR says.
struct DotOp {
  static constexpr int kWords = 1;

  template <int kRows, int kVectors>
  [[gnu::always_inline]] static inline void Step(const uint32_t* a,
                                                 const std::byte* b,
                                                 Sums<kRows, kVectors>& sums) {
    __m512bh w[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      w[v] = (__m512bh)_mm512_load_si512(b + v * kVectorBytes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const __m512bh x = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[r]));
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], x, w[v]);
      }
    }
  }
};

}  // namespace

const GemmKernels kAvx512DotBf16Kernels =
    MakeKernels<DotOp>("avx512_bf16", &PackRowsPairs, &ColumnsPairs);

}  // namespace octet::cpu
