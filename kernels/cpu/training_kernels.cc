#include "kernels/cpu/training_kernels.h"

#include "kernels/cpu/isa.h"

namespace octet::cpu {

const TrainingKernels& TrainingKernelsFor(Isa isa) {
  return isa == Isa::kAvx2 ? kTrainingKernelsAvx2 : kTrainingKernelsAvx512;
}

}  // namespace octet::cpu
