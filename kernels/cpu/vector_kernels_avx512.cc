// The AVX-512 build of the vector loops.
#include "kernels/cpu/vector_kernels-inl.h"

namespace octet::cpu {

constinit const VectorKernels kVectorKernelsAvx512 = MakeVectorKernels();

}  // namespace octet::cpu
