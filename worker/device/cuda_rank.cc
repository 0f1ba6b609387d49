#include "worker/device/cuda_rank.h"

#include <cuda_runtime.h>

#include <utility>

#include "base/status_macros.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/cuda_stream.h"
#include "worker/comm/nccl/nccl_communicator.h"

namespace octet {
namespace {

// The number of ranks of this host before this one; 0 where the launcher shows
// each process its own GPU only. Without a driver any number does.
int GpuOf(const Communicator& communicator) {
  int visible = 0;
  if (cudaGetDeviceCount(&visible) != cudaSuccess || visible == 1) return 0;
  const int rank = communicator.rank();
  const std::string host = communicator.host(rank);
  int before = 0;
  for (int other = 0; other < rank; ++other) {
    before += communicator.host(other) == host;
  }
  return before;
}

absl::StatusOr<int64_t> FreeBytes() {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  OCTET_RETURN_IF_ERROR(cuda::CudaStatus(
      cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo"));
  return static_cast<int64_t>(free_bytes);
}

}  // namespace

absl::StatusOr<CudaRank> NewCudaRank(std::unique_ptr<Communicator> host_data,
                                     absl::Duration timeout) {
  const int gpu = GpuOf(*host_data);
  const absl::Status opened = cuda::OpenCudaDevice(gpu).status();
  if (!opened.ok()) {
    host_data->Abort(opened);
    return opened;
  }
  NcclOptions nccl;
  nccl.timeout = timeout;
  nccl.native_stream = [](const Stream& stream) {
    return static_cast<const cuda::CudaStream&>(stream).get();
  };
  CudaRank rank;
  OCTET_ASSIGN_OR_RETURN(rank.communicator,
                         NewNcclCommunicator(std::move(host_data), nccl));
  rank.device.new_backend = [gpu] {
    CudaBackendOptions options;
    options.device = gpu;
    return NewCudaBackend(options);
  };
  rank.device.free_bytes = FreeBytes;
  return rank;
}

}  // namespace octet
