// The least that a Communicator promises about device memory: an AllToAllV is
// in the order of its stream, and the call returns before the data has moved.
#ifndef OCTET_TESTS_WORKER_MOE_NCCL_STREAM_ORDER_COMMUNICATOR_H_
#define OCTET_TESTS_WORKER_MOE_NCCL_STREAM_ORDER_COMMUNICATOR_H_

#include <memory>

#include "absl/status/statusor.h"
#include "worker/comm/communicator.h"

namespace octet::test {

// Over NCCL; host data, and all other collectives, over `host_data`. Streams
// are the CUDA backend's. Without deadlines for device memory.
absl::StatusOr<std::unique_ptr<Communicator>> NewStreamOrderCommunicator(
    std::unique_ptr<Communicator> host_data);

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_MOE_NCCL_STREAM_ORDER_COMMUNICATOR_H_
