// A synchronous client of an Octet service.
//
// Thread-safe: any number of threads may call one Client. Errors are the
// server's own sentence under its status code; a server that cannot be reached
// is UNAVAILABLE and names the address.
#ifndef OCTET_CLIENT_CLIENT_H_
#define OCTET_CLIENT_CLIENT_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/cluster.grpc.pb.h"
#include "proto/inference.grpc.pb.h"

namespace octet {

class Client {
 public:
  // `address` is host:port. Does not connect yet.
  explicit Client(const std::string& address);

  // Calls `on_chunk` for every chunk as it arrives; returning false cancels the
  // rest, which is not an error.
  absl::Status Generate(
      const v1::GenerateRequest& request,
      absl::FunctionRef<bool(const v1::GenerateResponse&)> on_chunk);
  absl::StatusOr<v1::ScoreResponse> Score(const v1::ScoreRequest& request);
  absl::StatusOr<v1::TokenizeResponse> Tokenize(
      const v1::TokenizeRequest& request);
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(
      const v1::DetokenizeRequest& request);

  absl::StatusOr<v1::GetInfoResponse> GetInfo();
  absl::StatusOr<v1::Topology> GetTopology();
  absl::StatusOr<v1::ExpertStats> GetExpertStats();
  // Returns once a worker group is ready, else DEADLINE_EXCEEDED after
  // `timeout`.
  absl::Status WaitUntilReady(absl::Duration timeout);

 private:
  Client(const std::string& address,
         const std::shared_ptr<grpc::Channel>& channel);
  absl::Status Convert(const grpc::Status& status) const;
  template <typename Response, typename Request, typename Stub, typename Method>
  absl::StatusOr<Response> Call(Stub& stub, Method method,
                                const Request& request, absl::Duration timeout);

  const std::string address_;
  const std::unique_ptr<v1::Inference::Stub> inference_;
  const std::unique_ptr<v1::Cluster::Stub> cluster_;
};

}  // namespace octet

#endif  // OCTET_CLIENT_CLIENT_H_
