// The AVX2 build of the vector loops.
#include "kernels/cpu/vector_kernels-inl.h"

namespace octet::cpu {

constinit const VectorKernels kVectorKernelsAvx2 = MakeVectorKernels();

}  // namespace octet::cpu
