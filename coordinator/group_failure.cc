#include "coordinator/group_failure.h"

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace octet {
namespace {

constexpr char kTypeUrl[] = "type.googleapis.com/octet.v1.GroupFailure";

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
  if (!failure.message().empty()) {
    absl::StrAppend(&text, ": ", failure.message());
  }
  absl::Status status = absl::UnavailableError(text);
  status.SetPayload(kTypeUrl, absl::Cord(failure.SerializeAsString()));
  return status;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const auto code = static_cast<grpc::StatusCode>(status.code());
  const std::string message(status.message());
  v1::ErrorDetails details;
  status.ForEachPayload(
      [&](absl::string_view type_url, const absl::Cord& payload) {
        google::protobuf::Any* any = details.add_details();
        any->set_type_url(std::string(type_url));
        any->set_value(std::string(payload));
      });
  if (details.details().empty()) return grpc::Status(code, message);
  details.set_code(code);
  details.set_message(message);
  return grpc::Status(code, message, details.SerializeAsString());
}

}  // namespace octet
