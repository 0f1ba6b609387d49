#include "tests/cuda_emulation/nccl/fault.h"

#include <signal.h>

#include <utility>

#include "tests/cuda_emulation/engine/options.h"
#include "tests/cuda_emulation/nccl/world.h"

namespace cuda_emu {
namespace {

// True once: in the group that the option names.
bool IsTurn() {
  static int groups = 0;
  const Options& options = GetOptions();
  return GetWorld().rank == options.nccl_fault_rank &&
         ++groups == options.nccl_fault_group;
}

}  // namespace

StepFunction StepsWithFault(ncclComm* comm, std::vector<PointToPoint> calls) {
  if (GetOptions().nccl_fault == NcclFault::kNone || !IsTurn()) {
    return PointToPointSteps(comm, std::move(calls));
  }
  switch (GetOptions().nccl_fault) {
    case NcclFault::kCount:
      --calls[0].count;
      break;
    case NcclFault::kStop:
    case NcclFault::kKill: {
      const int signal =
          GetOptions().nccl_fault == NcclFault::kStop ? SIGSTOP : SIGKILL;
      return [signal, sent = false,
              steps = PointToPointSteps(comm, std::move(calls))](
                 uint32_t operation) mutable {
        if (!std::exchange(sent, true)) raise(signal);
        return steps(operation);
      };
    }
    case NcclFault::kNone:
      break;
  }
  return PointToPointSteps(comm, std::move(calls));
}

}  // namespace cuda_emu
