// The AVX2 build of the training loops.
#include "kernels/cpu/training_kernels-inl.h"

namespace octet::cpu {

constinit const TrainingKernels kTrainingKernelsAvx2 = MakeTrainingKernels();

}  // namespace octet::cpu
