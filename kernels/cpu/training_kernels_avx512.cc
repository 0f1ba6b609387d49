// The AVX-512 build of the training loops.
#include "kernels/cpu/training_kernels-inl.h"

namespace octet::cpu {

constinit const TrainingKernels kTrainingKernelsAvx512 = MakeTrainingKernels();

}  // namespace octet::cpu
