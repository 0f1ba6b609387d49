#include "worker/comm/communicator.h"

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"

namespace octet {
namespace {

constexpr char kPayloadUrl[] = "octet.dev/collective-failure+json";

int64_t IntegerOr(const nlohmann::json& object, const char* key,
                  int64_t fallback) {
  auto found = object.find(key);
  if (found == object.end() || !found->is_number_integer()) return fallback;
  return found->get<int64_t>();
}

std::string StringOf(const nlohmann::json& object, const char* key) {
  auto found = object.find(key);
  if (found == object.end() || !found->is_string()) return "";
  return found->get<std::string>();
}

}  // namespace

std::string CollectiveFailure::ToString() const {
  std::string text =
      absl::StrCat("rank ", rank, " (host ", host,
                   "): ", operation.empty() ? "collective" : operation);
  if (layer >= 0) absl::StrAppend(&text, " of layer ", layer);
  if (step_id >= 0) absl::StrAppend(&text, " in step ", step_id);
  if (sequence_number >= 0) {
    absl::StrAppend(&text, " (collective ", sequence_number, ")");
  }
  absl::StrAppend(&text, " waited ", absl::FormatDuration(waited));
  if (!missing_ranks.empty()) {
    absl::StrAppend(&text,
                    missing_ranks.size() == 1 ? " for rank " : " for ranks ",
                    absl::StrJoin(missing_ranks, ", "));
  }
  if (!reason.empty()) absl::StrAppend(&text, ": ", reason);
  return text;
}

absl::Status CollectiveFailure::ToStatus(absl::StatusCode code) const {
  absl::Status status(code, ToString());
  // Host names and reasons come from outside: bytes that are not UTF-8 are
  // replaced.
  status.SetPayload(
      kPayloadUrl,
      absl::Cord(nlohmann::json{
          {"rank", rank},
          {"host", host},
          {"operation", operation},
          {"layer", layer},
          {"step_id", step_id},
          {"sequence_number", sequence_number},
          {"waited_ns", absl::ToInt64Nanoseconds(waited)},
          {"missing_ranks", missing_ranks},
          {"reason",
           reason}}.dump(-1, ' ', false,
                         nlohmann::json::error_handler_t::replace)));
  return status;
}

std::optional<CollectiveFailure> FailureOf(const absl::Status& status) {
  absl::optional<absl::Cord> payload = status.GetPayload(kPayloadUrl);
  if (!payload) return std::nullopt;
  const nlohmann::json object =
      nlohmann::json::parse(std::string(*payload), nullptr,
                            /*allow_exceptions=*/false);
  if (!object.is_object()) return std::nullopt;
  CollectiveFailure failure;
  failure.rank = static_cast<int>(IntegerOr(object, "rank", -1));
  failure.host = StringOf(object, "host");
  failure.operation = StringOf(object, "operation");
  failure.layer = static_cast<int>(IntegerOr(object, "layer", -1));
  failure.step_id = IntegerOr(object, "step_id", -1);
  failure.sequence_number = IntegerOr(object, "sequence_number", -1);
  failure.waited = absl::Nanoseconds(IntegerOr(object, "waited_ns", 0));
  failure.reason = StringOf(object, "reason");
  auto missing = object.find("missing_ranks");
  if (missing != object.end() && missing->is_array()) {
    for (const nlohmann::json& rank : *missing) {
      if (rank.is_number_integer()) {
        failure.missing_ranks.push_back(rank.get<int>());
      }
    }
  }
  return failure;
}

}  // namespace octet
