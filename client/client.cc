#include "client/client.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "google/protobuf/message.h"
#include "grpcpp/grpcpp.h"
#include "text/utf8.h"

namespace octet {
namespace {

constexpr int kMaxMessageBytes = 64 << 20;

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& target) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20000);
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(),
                                   arguments);
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
  v1::ErrorDetails details;
  if (details.ParseFromString(status.error_details())) {
    for (const google::protobuf::Any& detail : details.details()) {
      result.SetPayload(detail.type_url(), absl::Cord(detail.value()));
    }
  }
  return result;
}

// Protocol buffers hold text as UTF-8; of other bytes gRPC only says that it
// failed. `prefix`: the path to the message.
absl::Status CheckText(const google::protobuf::Message& message,
                       const std::string& prefix = "") {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const google::protobuf::FieldDescriptor* field : fields) {
    const int count =
        field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      const bool one = !field->is_repeated();
      const std::string path = absl::StrCat(
          prefix, field->name(), one ? "" : absl::StrCat("[", i, "]"));
      if (field->type() == google::protobuf::FieldDescriptor::TYPE_MESSAGE) {
        OCTET_RETURN_IF_ERROR(
            CheckText(one ? reflection.GetMessage(message, field)
                          : reflection.GetRepeatedMessage(message, field, i),
                      path + "."));
      } else if (field->type() ==
                 google::protobuf::FieldDescriptor::TYPE_STRING) {
        const std::string text =
            one ? reflection.GetString(message, field)
                : reflection.GetRepeatedString(message, field, i);
        const size_t valid = ValidUtf8Prefix(text);
        if (valid == text.size()) continue;
        return absl::InvalidArgumentError(absl::StrCat(
            path, " is not UTF-8 at byte ", valid, ", expected UTF-8 text"));
      }
    }
  }
  return absl::OkStatus();
}

void SetDeadline(absl::Duration timeout, grpc::ClientContext* context) {
  if (timeout < absl::InfiniteDuration()) {
    context->set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  }
}

// One unary call.
template <typename Response, typename Stub, typename Request>
absl::StatusOr<Response> Call(
    Stub& stub,
    grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                 Response*),
    const Request& request, absl::Duration timeout = absl::InfiniteDuration()) {
  OCTET_RETURN_IF_ERROR(CheckText(request));
  grpc::ClientContext context;
  SetDeadline(timeout, &context);
  Response response;
  const grpc::Status status = (stub.*method)(&context, request, &response);
  if (!status.ok()) return FromGrpc(status);
  return response;
}

}  // namespace

Client::Client(const std::string& target) : Client(MakeChannel(target)) {}

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
  return FromGrpc(reader->Finish());
}

absl::StatusOr<v1::ScoreResponse> Client::Score(const v1::ScoreRequest& request,
                                                absl::Duration timeout) {
  return Call(*inference_, &v1::Inference::Stub::Score, request, timeout);
}

absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(
    const v1::TokenizeRequest& request) {
  return Call(*inference_, &v1::Inference::Stub::Tokenize, request);
}

absl::StatusOr<std::string> Client::Detokenize(
    absl::Span<const int32_t> token_ids) {
  v1::DetokenizeRequest request;
  request.mutable_token_ids()->Add(token_ids.begin(), token_ids.end());
  auto response = Call(*inference_, &v1::Inference::Stub::Detokenize, request);
  if (!response.ok()) return response.status();
  return response->text();
}

absl::StatusOr<v1::GetInfoResponse> Client::GetInfo() {
  return Call(*cluster_, &v1::Cluster::Stub::GetInfo, v1::GetInfoRequest());
}

absl::StatusOr<v1::Topology> Client::GetTopology() {
  return Call(*cluster_, &v1::Cluster::Stub::GetTopology,
              v1::GetTopologyRequest());
}

absl::StatusOr<v1::ExpertStats> Client::GetExpertStats() {
  return Call(*cluster_, &v1::Cluster::Stub::GetExpertStats,
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
  return FromGrpc(reader->Finish());
}

}  // namespace octet
