#include "coordinator/group_failure.h"

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace octet {
namespace {

constexpr char kTypeUrl[] = "type.googleapis.com/octet.v1.GroupFailure";

// gRPC carries a status in HTTP headers, and clients refuse more than 8 KiB of
// them: one byte of a message may take three there, and one of the details 4/3.
constexpr size_t kMaxMessageBytes = 1024;
constexpr size_t kMaxDetailsBytes = 2560;
constexpr size_t kMaxFailureMessageBytes = 512;

// At most `max_bytes` of `text`, whole characters.
std::string Shortened(absl::string_view text, size_t max_bytes) {
  constexpr absl::string_view kMore = "...";
  if (text.size() <= max_bytes) return std::string(text);
  size_t end = max_bytes - kMore.size();
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) {
    --end;
  }
  return absl::StrCat(text.substr(0, end), kMore);
}

}  // namespace

v1::GroupFailure MakeGroupFailure(std::string message) {
  v1::GroupFailure failure;
  failure.set_rank(-1);
  failure.set_layer(-1);
  failure.set_step_id(-1);
  failure.set_sequence_number(-1);
  failure.set_message(std::move(message));
  return failure;
}

absl::Status GroupFailureStatus(const v1::GroupFailure& failure) {
  std::string text = "the worker group failed";
  if (failure.rank() >= 0) absl::StrAppend(&text, " at rank ", failure.rank());
  if (!failure.host().empty()) {
    absl::StrAppend(&text, " on ", failure.host());
  }
  if (!failure.operation().empty()) {
    absl::StrAppend(&text, " in ", failure.operation());
  }
  if (failure.layer() >= 0) absl::StrAppend(&text, ", layer ", failure.layer());
  if (failure.step_id() >= 0) {
    absl::StrAppend(&text, ", step ", failure.step_id());
  }
  if (!failure.missing_ranks().empty()) {
    absl::StrAppend(&text, ", missing ranks ",
                    absl::StrJoin(failure.missing_ranks(), ", "));
  }
  v1::GroupFailure payload = failure;
  payload.set_message(Shortened(failure.message(), kMaxFailureMessageBytes));
  if (!payload.message().empty()) {
    absl::StrAppend(&text, ": ", payload.message());
  }
  absl::Status status = absl::UnavailableError(text);
  status.SetPayload(kTypeUrl, absl::Cord(payload.SerializeAsString()));
  return status;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const auto code = static_cast<grpc::StatusCode>(status.code());
  const std::string message = Shortened(status.message(), kMaxMessageBytes);
  v1::ErrorDetails details;
  status.ForEachPayload(
      [&](absl::string_view type_url, const absl::Cord& payload) {
        google::protobuf::Any* any = details.add_details();
        any->set_type_url(std::string(type_url));
        any->set_value(std::string(payload));
      });
  details.set_code(code);
  details.set_message(message);
  if (details.details().empty() || details.ByteSizeLong() > kMaxDetailsBytes) {
    return grpc::Status(code, message);
  }
  return grpc::Status(code, message, details.SerializeAsString());
}

}  // namespace octet
