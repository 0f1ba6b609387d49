// Parts of f32 or bf16 tensors as f32, for operations that take either.
#ifndef OCTET_KERNELS_CPU_FLOAT_ROWS_H_
#define OCTET_KERNELS_CPU_FLOAT_ROWS_H_

#include <cstdint>

#include "kernels/cpu/vector_kernels.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// Elements [at, at + n) as f32: where they lie, or widened into `buffer`.
const float* ReadFloats(const VectorKernels& kernels, ConstTensor tensor,
                        int64_t at, int64_t n, float* buffer);

// Writes elements [at, at + n), rounded to the tensor's dtype. `from` may be
// those elements themselves.
void WriteFloats(const VectorKernels& kernels, const float* from, int64_t n,
                 Tensor tensor, int64_t at);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_FLOAT_ROWS_H_
