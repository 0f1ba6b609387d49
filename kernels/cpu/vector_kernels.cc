#include "kernels/cpu/vector_kernels.h"

#include "kernels/cpu/isa.h"

namespace octet::cpu {

const VectorKernels& VectorKernelsFor(Isa isa) {
  return isa == Isa::kAvx2 ? kVectorKernelsAvx2 : kVectorKernelsAvx512;
}

}  // namespace octet::cpu
