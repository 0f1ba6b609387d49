#include "worker/comm/call_signature.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace octet {
namespace {

absl::string_view KindName(CollectiveKind kind) {
  switch (kind) {
    case CollectiveKind::kAllToAllV:
      return "AllToAllV";
    case CollectiveKind::kAllGather:
      return "AllGather";
    case CollectiveKind::kAllReduceI64:
      return "AllReduceI64";
    case CollectiveKind::kBroadcast:
      return "Broadcast";
    case CollectiveKind::kBarrier:
      return "Barrier";
  }
  return "unknown collective";
}

bool Differ(int64_t a, int64_t b) { return a >= 0 && b >= 0 && a != b; }

}  // namespace

void CallSignature::SetOperation(absl::string_view name) {
  const size_t length = std::min(name.size(), sizeof(operation) - 1);
  std::memcpy(operation, name.data(), length);
  std::memset(operation + length, 0, sizeof(operation) - length);
}

std::string CallSignature::ToString() const {
  std::string text = absl::StrCat(
      absl::string_view(operation, strnlen(operation, sizeof(operation))), " (",
      KindName(kind));
  if (kind == CollectiveKind::kBroadcast) {
    absl::StrAppend(&text, " from rank ", variant);
  }
  if (kind == CollectiveKind::kAllReduceI64) {
    absl::StrAppend(&text, variant == 0 ? " sum" : " max");
  }
  if (bytes > 0) absl::StrAppend(&text, ", ", bytes, " bytes");
  if (layer >= 0) absl::StrAppend(&text, ", layer ", layer);
  if (step_id >= 0) absl::StrAppend(&text, ", step ", step_id);
  return absl::StrCat(text, ")");
}

std::string DescribeMismatch(int rank, const CallSignature& mine, int peer,
                             const CallSignature& theirs) {
  const bool same =
      mine.sequence_number == theirs.sequence_number &&
      mine.kind == theirs.kind && mine.variant == theirs.variant &&
      mine.bytes == theirs.bytes && !Differ(mine.layer, theirs.layer) &&
      !Differ(mine.step_id, theirs.step_id) &&
      std::memcmp(mine.operation, theirs.operation, sizeof(mine.operation)) ==
          0;
  if (same) return "";
  if (mine.sequence_number != theirs.sequence_number) {
    return absl::StrCat(
        "ranks are out of step: rank ", rank, " is in ", mine.ToString(),
        " as collective ", mine.sequence_number, ", rank ", peer, " in ",
        theirs.ToString(), " as collective ", theirs.sequence_number);
  }
  return absl::StrCat("ranks called different collectives: rank ", rank,
                      " called ", mine.ToString(), ", rank ", peer, " called ",
                      theirs.ToString());
}

std::string PartMismatch(int sender, int64_t sent_bytes, int receiver,
                         int64_t expected_bytes) {
  return absl::StrCat("rank ", sender, " sends ", sent_bytes, " bytes to rank ",
                      receiver, ", which expects ", expected_bytes);
}

}  // namespace octet
