#include "client/client.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/call.h"
#include "grpcpp/grpcpp.h"

namespace octet {

Client::Client(const std::string& target) : Client(NewChannel(target)) {}

Client::Client(std::shared_ptr<grpc::Channel> channel)
    : channel_(std::move(channel)),
      inference_(v1::Inference::NewStub(channel_)),
      cluster_(v1::Cluster::NewStub(channel_)) {}

absl::Status Client::WaitConnected(absl::Duration timeout) {
  if (channel_->WaitForConnected(absl::ToChronoTime(absl::Now() + timeout))) {
    return absl::OkStatus();
  }
  return absl::UnavailableError(absl::StrCat("no coordinator answered within ",
                                             absl::FormatDuration(timeout)));
}

absl::Status Client::WaitUntilReady(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    const absl::StatusOr<v1::GetInfoResponse> info = GetInfo();
    if (info.ok() && info->state() == v1::GROUP_STATE_READY) {
      return absl::OkStatus();
    }
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("not ready after ", absl::FormatDuration(timeout), ": ",
                       info.ok() ? "no worker group is connected"
                                 : std::string(info.status().message())));
    }
    absl::SleepFor(std::min(absl::Milliseconds(50), deadline - absl::Now()));
  }
}

absl::Status Client::Generate(const v1::GenerateRequest& request,
                              const OnChunk& on_chunk, absl::Duration timeout) {
  OCTET_RETURN_IF_ERROR(CheckText(request));
  grpc::ClientContext context;
  SetDeadline(timeout, &context);
  const auto reader = inference_->Generate(&context, request);
  v1::GenerateResponse chunk;
  while (reader->Read(&chunk)) {
    if (on_chunk(chunk)) continue;
    context.TryCancel();
    while (reader->Read(&chunk)) {
    }
    break;
  }
  return FromGrpcStatus(reader->Finish());
}

absl::StatusOr<v1::ScoreResponse> Client::Score(const v1::ScoreRequest& request,
                                                absl::Duration timeout) {
  return UnaryCall(*inference_, &v1::Inference::Stub::Score, request, timeout);
}

absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(
    const v1::TokenizeRequest& request) {
  return UnaryCall(*inference_, &v1::Inference::Stub::Tokenize, request);
}

absl::StatusOr<std::string> Client::Detokenize(
    absl::Span<const int32_t> token_ids) {
  v1::DetokenizeRequest request;
  request.mutable_token_ids()->Add(token_ids.begin(), token_ids.end());
  auto response =
      UnaryCall(*inference_, &v1::Inference::Stub::Detokenize, request);
  if (!response.ok()) return response.status();
  return response->text();
}

absl::StatusOr<v1::GetInfoResponse> Client::GetInfo() {
  return UnaryCall(*cluster_, &v1::Cluster::Stub::GetInfo,
                   v1::GetInfoRequest());
}

absl::StatusOr<v1::Topology> Client::GetTopology() {
  return UnaryCall(*cluster_, &v1::Cluster::Stub::GetTopology,
                   v1::GetTopologyRequest());
}

absl::StatusOr<v1::ExpertStats> Client::GetExpertStats() {
  return UnaryCall(*cluster_, &v1::Cluster::Stub::GetExpertStats,
                   v1::GetExpertStatsRequest());
}

absl::Status Client::WatchEvents(const OnEvent& on_event) {
  grpc::ClientContext context;
  const auto reader = cluster_->WatchEvents(&context, v1::WatchEventsRequest());
  v1::Event event;
  while (reader->Read(&event)) {
    if (on_event(event)) continue;
    context.TryCancel();
    while (reader->Read(&event)) {
    }
    reader->Finish();
    return absl::OkStatus();
  }
  return FromGrpcStatus(reader->Finish());
}

}  // namespace octet
