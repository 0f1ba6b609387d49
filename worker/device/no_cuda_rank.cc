#include <utility>

#include "absl/status/status.h"
#include "worker/device/cuda_rank.h"

namespace octet {

absl::StatusOr<CudaRank> NewCudaRank(std::unique_ptr<Communicator> host_data,
                                     absl::Duration /*timeout*/) {
  const absl::Status status = absl::FailedPreconditionError(
      "--device is 'cuda', but this build has no CUDA (nvcc and NCCL were not "
      "found when it was configured)");
  host_data->Abort(status);
  return status;
}

}  // namespace octet
