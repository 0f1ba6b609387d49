#include "kernels/cpu/float_rows.h"

#include <cstring>

namespace octet::cpu {

const float* ReadFloats(const VectorKernels& kernels, ConstTensor tensor,
                        int64_t at, int64_t n, float* buffer) {
  if (tensor.dtype() == DType::kF32) return tensor.as<float>() + at;
  kernels.from_bf16(tensor.as<uint16_t>() + at, n, buffer);
  return buffer;
}

void WriteFloats(const VectorKernels& kernels, const float* from, int64_t n,
                 Tensor tensor, int64_t at) {
  if (tensor.dtype() == DType::kBF16) {
    kernels.to_bf16(from, n, tensor.as<uint16_t>() + at);
  } else if (from != tensor.as<float>() + at) {
    std::memcpy(tensor.as<float>() + at, from, n * sizeof(float));
  }
}

}  // namespace octet::cpu
