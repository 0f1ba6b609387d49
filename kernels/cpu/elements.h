// Parts of f32 or bf16 tensors for the loops of training_kernels.h.
#ifndef OCTET_KERNELS_CPU_ELEMENTS_H_
#define OCTET_KERNELS_CPU_ELEMENTS_H_

#include <cstdint>

#include "kernels/cpu/training_kernels.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// The elements from `at` on.
inline ConstElements ElementsAt(ConstTensor tensor, int64_t at) {
  return {static_cast<const char*>(tensor.data()) +
              at * static_cast<int64_t>(SizeOf(tensor.dtype())),
          tensor.dtype() == DType::kBF16};
}
inline Elements ElementsAt(Tensor tensor, int64_t at) {
  return {static_cast<char*>(tensor.data()) +
              at * static_cast<int64_t>(SizeOf(tensor.dtype())),
          tensor.dtype() == DType::kBF16};
}

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_ELEMENTS_H_
