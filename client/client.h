// The C++ client of a coordinator, over one channel. Blocking calls; thread-
// safe. Errors are the server's status with its message, and with the
// octet.v1.GroupFailure of a failed worker group as a payload.
#ifndef OCTET_CLIENT_CLIENT_H_
#define OCTET_CLIENT_CLIENT_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "grpcpp/channel.h"
#include "proto/cluster.grpc.pb.h"
#include "proto/inference.grpc.pb.h"

namespace octet {

class Client {
 public:
  // False cancels the call.
  using OnChunk = std::function<bool(const v1::GenerateResponse&)>;
  using OnEvent = std::function<bool(const v1::Event&)>;

  // `target` is HOST:PORT. Does not connect yet.
  explicit Client(const std::string& target);
  explicit Client(std::shared_ptr<grpc::Channel> channel);

  // UNAVAILABLE when nobody listens there within `timeout`.
  absl::Status WaitConnected(absl::Duration timeout);
  // Returns once a worker group is ready, else DEADLINE_EXCEEDED after
  // `timeout`.
  absl::Status WaitUntilReady(absl::Duration timeout);

  // OK when the continuations ended; CANCELLED when `on_chunk` returned false.
  // `timeout` is the request's deadline.
  absl::Status Generate(const v1::GenerateRequest& request,
                        const OnChunk& on_chunk,
                        absl::Duration timeout = absl::InfiniteDuration());
  absl::StatusOr<v1::ScoreResponse> Score(
      const v1::ScoreRequest& request,
      absl::Duration timeout = absl::InfiniteDuration());
  absl::StatusOr<v1::TokenizeResponse> Tokenize(
      const v1::TokenizeRequest& request);
  absl::StatusOr<std::string> Detokenize(absl::Span<const int32_t> token_ids);

  absl::StatusOr<v1::GetInfoResponse> GetInfo();
  absl::StatusOr<v1::Topology> GetTopology();
  absl::StatusOr<v1::ExpertStats> GetExpertStats();
  // Until `on_event` returns false (OK) or the server ends (its status).
  absl::Status WatchEvents(const OnEvent& on_event);

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Inference::Stub> inference_;
  const std::unique_ptr<v1::Cluster::Stub> cluster_;
};

}  // namespace octet

#endif  // OCTET_CLIENT_CLIENT_H_
