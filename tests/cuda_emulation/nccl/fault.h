// A rank that goes wrong on its GPU in the middle of a job, as
// CUDA_EMU_NCCL_FAULT says (engine/options.h): for programs that know nothing
// of the emulation.
#ifndef CUDA_EMU_NCCL_FAULT_H_
#define CUDA_EMU_NCCL_FAULT_H_

#include <vector>

#include "tests/cuda_emulation/nccl/communicator.h"

namespace cuda_emu {

// The work of this process' next group of sends and receives, with the fault
// when it is this one's turn.
StepFunction StepsWithFault(ncclComm* comm, std::vector<PointToPoint> calls);

}  // namespace cuda_emu

#endif  // CUDA_EMU_NCCL_FAULT_H_
