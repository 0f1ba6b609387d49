#include "client/client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"

namespace octet {
namespace {

// Control calls answer from memory or after at most a step; a server that needs
// longer is stuck.
constexpr absl::Duration kControlTimeout = absl::Seconds(60);

std::shared_ptr<grpc::Channel> NewChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(
      -1);  // a Score answer of a long text with alternatives is large
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(),
                                   arguments);
}

}  // namespace

Client::Client(const std::string& address)
    : Client(address, NewChannel(address)) {}

Client::Client(const std::string& address,
               const std::shared_ptr<grpc::Channel>& channel)
    : address_(address),
      inference_(v1::Inference::NewStub(channel)),
      cluster_(v1::Cluster::NewStub(channel)) {}

absl::Status Client::Convert(const grpc::Status& status) const {
  if (status.ok()) return absl::OkStatus();
  std::string message = status.error_message();
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
    message = absl::StrCat("server ", address_, ": ", message);
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      message);
}

absl::Status Client::Generate(
    const v1::GenerateRequest& request,
    absl::FunctionRef<bool(const v1::GenerateResponse&)> on_chunk) {
  grpc::ClientContext context;
  const auto reader = inference_->Generate(&context, request);
  v1::GenerateResponse chunk;
  bool wanted = true;
  while (reader->Read(&chunk)) {
    if (wanted && !on_chunk(chunk)) {
      wanted = false;
      context.TryCancel();
    }
  }
  const grpc::Status status = reader->Finish();
  return wanted ? Convert(status) : absl::OkStatus();
}

template <typename Response, typename Request, typename Stub, typename Method>
absl::StatusOr<Response> Client::Call(Stub& stub, Method method,
                                      const Request& request,
                                      absl::Duration timeout) {
  grpc::ClientContext context;
  if (timeout < absl::InfiniteDuration()) {
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  }
  Response response;
  OCTET_RETURN_IF_ERROR(Convert((stub.*method)(&context, request, &response)));
  return response;
}

absl::StatusOr<v1::ScoreResponse> Client::Score(
    const v1::ScoreRequest& request) {
  return Call<v1::ScoreResponse>(*inference_, &v1::Inference::Stub::Score,
                                 request, absl::InfiniteDuration());
}

absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(
    const v1::TokenizeRequest& request) {
  return Call<v1::TokenizeResponse>(*inference_, &v1::Inference::Stub::Tokenize,
                                    request, kControlTimeout);
}

absl::StatusOr<v1::DetokenizeResponse> Client::Detokenize(
    const v1::DetokenizeRequest& request) {
  return Call<v1::DetokenizeResponse>(
      *inference_, &v1::Inference::Stub::Detokenize, request, kControlTimeout);
}

absl::StatusOr<v1::GetInfoResponse> Client::GetInfo() {
  return Call<v1::GetInfoResponse>(*cluster_, &v1::Cluster::Stub::GetInfo,
                                   v1::GetInfoRequest(), kControlTimeout);
}

absl::StatusOr<v1::Topology> Client::GetTopology() {
  return Call<v1::Topology>(*cluster_, &v1::Cluster::Stub::GetTopology,
                            v1::GetTopologyRequest(), kControlTimeout);
}

absl::StatusOr<v1::ExpertStats> Client::GetExpertStats() {
  return Call<v1::ExpertStats>(*cluster_, &v1::Cluster::Stub::GetExpertStats,
                               v1::GetExpertStatsRequest(), kControlTimeout);
}

absl::Status Client::WaitUntilReady(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    const absl::StatusOr<v1::GetInfoResponse> info = GetInfo();
    if (info.ok() && info->state() == v1::GROUP_STATE_READY)
      return absl::OkStatus();
    if (absl::Now() >= deadline) {
      const std::string why = info.ok() ? "no worker group is connected"
                                        : std::string(info.status().message());
      return absl::DeadlineExceededError(
          absl::StrCat("server ", address_, " is not ready after ",
                       absl::FormatDuration(timeout), ": ", why));
    }
    absl::SleepFor(std::min(absl::Milliseconds(50), deadline - absl::Now()));
  }
}

}  // namespace octet
