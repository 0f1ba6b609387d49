#include "kernels/cpu/gemm_amx-inl.h"

namespace octet::cpu {

const GemmKernels kAmxBf16Kernels = AmxKernels<HardwareTiles>("amx");

}  // namespace octet::cpu
