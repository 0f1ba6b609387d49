#include "client/call.h"

#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "google/protobuf/message.h"
#include "grpcpp/grpcpp.h"
#include "proto/cluster.pb.h"
#include "text/utf8.h"

namespace octet {
namespace {

constexpr int kMaxMessageBytes = 64 << 20;

// `prefix`: the path to the message.
absl::Status CheckTextAt(const google::protobuf::Message& message,
                         const std::string& prefix) {
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
            CheckTextAt(one ? reflection.GetMessage(message, field)
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

}  // namespace

std::shared_ptr<grpc::Channel> NewChannel(const std::string& target) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20000);
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(),
                                   arguments);
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
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

void SetDeadline(absl::Duration timeout, grpc::ClientContext* context) {
  if (timeout < absl::InfiniteDuration()) {
    context->set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  }
}

absl::Status CheckText(const google::protobuf::Message& message) {
  return CheckTextAt(message, "");
}

}  // namespace octet
