// Compiled with -mavx512f and its companions: only what runs behind a check of
// the processor may stand here.
#include "kernels/cpu/gemm_simd-inl.h"

namespace octet::cpu {

const GemmKernels kAvx512F32Kernels =
    MakeKernels<F32Op>("avx512", &PackRowsF32, &ColumnsF32);
const GemmKernels kAvx512Bf16Kernels =
    MakeKernels<WidenOp>("avx512", &PackRowsWiden, &ColumnsWiden);
const EpilogueKernels kAvx512Epilogue = {&SiluMul, &ToBf16, &Stream,
                                         &StreamEnd};

}  // namespace octet::cpu
