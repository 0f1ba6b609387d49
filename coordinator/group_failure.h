// The typed error of a worker group that failed, inside the process
// (absl::Status with a payload) and on the wire (grpc::Status whose details are
// an ErrorDetails, the same bytes as google.rpc.Status).
#ifndef OCTET_COORDINATOR_GROUP_FAILURE_H_
#define OCTET_COORDINATOR_GROUP_FAILURE_H_

#include <string>

#include "absl/status/status.h"
#include "grpcpp/support/status.h"
#include "proto/cluster.pb.h"

namespace octet {

// A failure in which nothing is known but `message`.
v1::GroupFailure MakeGroupFailure(std::string message);

// UNAVAILABLE; names rank, host, operation, layer, step and missing ranks, as
// far as they are known.
absl::Status GroupFailureStatus(const v1::GroupFailure& failure);

// A message too long for the wire is cut, details too long for it left out.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace octet

#endif  // OCTET_COORDINATOR_GROUP_FAILURE_H_
