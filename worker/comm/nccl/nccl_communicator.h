// One rank of a group whose ranks are processes with a GPU each: device data
// over NCCL, everything else over another communicator of the same ranks.
//
// OpInfo.stream decides. With it, an AllToAllV moves device memory, in the
// stream's order; without it, and for all other collectives, the data is host
// memory and goes the other way.
//
// The ranks first meet on the host: each learns what every other is about to
// send and expects, so that a rank that is late, dead or wrong is named before
// anything is on the GPU, where it could only hang. Then one group of ncclSend
// and ncclRecv goes on the stream, and the call returns when it is done: until
// then it looks at NCCL's asynchronous error, at the group and at the deadline,
// and ends what hangs by ncclCommAbort. Work on other streams goes on
// meanwhile.
#ifndef OCTET_WORKER_COMM_NCCL_NCCL_COMMUNICATOR_H_
#define OCTET_WORKER_COMM_NCCL_NCCL_COMMUNICATOR_H_

#include <cuda_runtime.h>

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/comm/communicator.h"

namespace octet {

struct NcclOptions {
  // How long an AllToAllV of device memory may take when its OpInfo does not
  // say.
  absl::Duration timeout = absl::Seconds(60);
  // The CUDA stream behind a stream of the backend.
  std::function<cudaStream_t(const Stream&)> native_stream;
};

// Collective over the ranks of `host_data`, which carries host data from here
// on. The current device of the calling thread is the rank's GPU, and stays the
// one of the thread that uses the communicator. Counters of device data hold
// what NCCL moved.
absl::StatusOr<std::unique_ptr<Communicator>> NewNcclCommunicator(
    std::unique_ptr<Communicator> host_data, NcclOptions options);

}  // namespace octet

#endif  // OCTET_WORKER_COMM_NCCL_NCCL_COMMUNICATOR_H_
