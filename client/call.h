// What every call of the service has in common: the channel, the deadline, and
// errors as absl::Status. Internal to client/.
#ifndef OCTET_CLIENT_CALL_H_
#define OCTET_CLIENT_CALL_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "google/protobuf/message.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/status.h"

namespace octet {

// `target` is HOST:PORT. Does not connect yet.
std::shared_ptr<grpc::Channel> NewChannel(const std::string& target);

// The server's error with its message; its details become payloads.
absl::Status FromGrpcStatus(const grpc::Status& status);

// Protocol buffers hold text as UTF-8; of other bytes gRPC only says that it
// failed. INVALID_ARGUMENT names the field.
absl::Status CheckText(const google::protobuf::Message& message);

void SetDeadline(absl::Duration timeout, grpc::ClientContext* context);

// One unary call.
template <typename Response, typename Stub, typename Request>
absl::StatusOr<Response> UnaryCall(
    Stub& stub,
    grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                 Response*),
    const Request& request, absl::Duration timeout = absl::InfiniteDuration()) {
  OCTET_RETURN_IF_ERROR(CheckText(request));
  grpc::ClientContext context;
  SetDeadline(timeout, &context);
  Response response;
  const grpc::Status status = (stub.*method)(&context, request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  return response;
}

}  // namespace octet

#endif  // OCTET_CLIENT_CALL_H_
