// Compiled with -mavx2 -mfma: only what runs behind a check of the processor
// may stand here.
#include "kernels/cpu/gemm_simd-inl.h"

namespace octet::cpu {

const GemmKernels kAvx2F32Kernels =
    MakeKernels<F32Op>("avx2", &PackRowsF32, &ColumnsF32);
const GemmKernels kAvx2Bf16Kernels =
    MakeKernels<WidenOp>("avx2", &PackRowsWiden, &ColumnsWiden);
const EpilogueKernels kAvx2Epilogue = {&SiluMul, &ToBf16, &Stream, &StreamEnd};

}  // namespace octet::cpu
