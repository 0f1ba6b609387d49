// An NCCL communicator of this process' GPU that never blocks: every call
// starts something, Settled says whether it is over, and Abort ends what hangs.
//
// One thread at a time; the device must be the current one, and the same for
// every call.
#ifndef OCTET_WORKER_COMM_NCCL_NCCL_GROUP_H_
#define OCTET_WORKER_COMM_NCCL_NCCL_GROUP_H_

#include <cuda_runtime.h>
#include <nccl.h>

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/comm/communicator.h"

namespace octet {

// OK, or one sentence that begins with `call`: UNAVAILABLE when another rank or
// the network is at fault, else INTERNAL.
absl::Status NcclStatus(ncclResult_t result, absl::string_view call);

class NcclGroup {
 public:
  NcclGroup() = default;
  ~NcclGroup();
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;

  // Begins to connect `size` ranks with one id (ncclGetUniqueId); over when
  // Settled.
  absl::Status Connect(const ncclUniqueId& id, int rank, int size);

  // False while the last call is under way; the communicator's asynchronous
  // error.
  absl::StatusOr<bool> Settled();

  // Puts one group of sends and receives on the stream, and a copy for this
  // rank's own part. Parts of no bytes move nothing: the peer must agree on the
  // sizes. Over when Settled (the launch) and when the stream is past it.
  absl::Status AllToAllV(const Communicator::AllToAllVArgs& args,
                         cudaStream_t stream);

  // Ends the work under way on the GPU; no call from here on.
  void Abort();

 private:
  ncclComm_t comm_ = nullptr;
  int rank_ = 0;
  int size_ = 1;
};

}  // namespace octet

#endif  // OCTET_WORKER_COMM_NCCL_NCCL_GROUP_H_
