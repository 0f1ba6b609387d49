// A rank on a GPU: its backend, and NCCL between the GPUs of the group. Always
// there to be called; cuda_rank.cc is what it does in a build with CUDA and
// NCCL, no_cuda_rank.cc in one without.
#ifndef OCTET_WORKER_DEVICE_CUDA_RANK_H_
#define OCTET_WORKER_DEVICE_CUDA_RANK_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/comm/communicator.h"
#include "worker/device/rank_device.h"

namespace octet {

struct CudaRank {
  std::unique_ptr<Communicator> communicator;
  RankDevice device;
};

// Collective over `host_data` (NewNcclCommunicator). The rank takes the only
// GPU that its process sees, or else the one with its number among the ranks of
// its host. FAILED_PRECONDITION when this build or this host has no CUDA,
// INVALID_ARGUMENT when the host has fewer GPUs than ranks; a rank that fails
// aborts the group. The calling thread is the one that runs the rank.
absl::StatusOr<CudaRank> NewCudaRank(std::unique_ptr<Communicator> host_data,
                                     absl::Duration timeout);

}  // namespace octet

#endif  // OCTET_WORKER_DEVICE_CUDA_RANK_H_
