#include "worker/comm/group_messages.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace octet {
namespace {

// Room for a decode plan or the results of a few dozen sequences; small beside
// what a collective costs anyway.
constexpr int64_t kInlineBytes = 1016;

// Size of the message, and its first bytes.
struct Envelope {
  int64_t num_bytes = 0;
  char first[kInlineBytes] = {};
};
static_assert(sizeof(Envelope) == 1024);

// How a rank's work ended.
struct Outcome {
  int32_t code = 0;
  int32_t text_bytes = 0;
  char text[1000] = {};
};

// More than any plan or result: a size beyond it is not one.
constexpr int64_t kMaxBytes = int64_t{1} << 32;

Envelope Seal(absl::string_view message) {
  Envelope envelope;
  envelope.num_bytes = static_cast<int64_t>(message.size());
  const int64_t inlined = std::min(envelope.num_bytes, kInlineBytes);
  std::copy_n(message.data(), inlined, envelope.first);
  return envelope;
}

// The message with its inlined part filled in; the rest is to come.
absl::StatusOr<std::string> Open(const Envelope& envelope, int rank) {
  if (envelope.num_bytes < 0 || envelope.num_bytes > kMaxBytes) {
    return absl::InternalError(absl::StrCat(
        "rank ", rank, " announced a message of ", envelope.num_bytes,
        " bytes, expected at most ", kMaxBytes));
  }
  std::string message(envelope.num_bytes, '\0');
  const int64_t inlined = std::min(envelope.num_bytes, kInlineBytes);
  std::copy_n(envelope.first, inlined, message.data());
  return message;
}

OpInfo WithDefaultTimeout(OpInfo op) {
  op.timeout.reset();
  return op;
}

}  // namespace

absl::StatusOr<std::string> BroadcastMessage(Communicator& communicator,
                                             absl::string_view message,
                                             const OpInfo& op) {
  Envelope envelope;
  if (communicator.rank() == 0) envelope = Seal(message);
  OCTET_RETURN_IF_ERROR(
      communicator.Broadcast(&envelope, sizeof(envelope), 0, op));
  OCTET_ASSIGN_OR_RETURN(std::string out, Open(envelope, 0));
  const int64_t rest = envelope.num_bytes - kInlineBytes;
  if (rest <= 0) return out;
  if (communicator.rank() == 0) out = std::string(message);
  OCTET_RETURN_IF_ERROR(communicator.Broadcast(out.data() + kInlineBytes, rest,
                                               0, WithDefaultTimeout(op)));
  return out;
}

absl::StatusOr<std::vector<std::string>> GatherMessages(
    Communicator& communicator, absl::string_view message, const OpInfo& op) {
  const int num_ranks = communicator.size();
  const Envelope own = Seal(message);
  std::vector<Envelope> envelopes(num_ranks);
  OCTET_RETURN_IF_ERROR(
      communicator.AllGather(&own, envelopes.data(), sizeof(own), op));
  std::vector<std::string> messages;
  int64_t rest_bytes = 0;
  for (int rank = 0; rank < num_ranks; ++rank) {
    OCTET_ASSIGN_OR_RETURN(messages.emplace_back(),
                           Open(envelopes[rank], rank));
    rest_bytes +=
        std::max<int64_t>(0, envelopes[rank].num_bytes - kInlineBytes);
  }
  const bool root = communicator.rank() == 0;
  if (rest_bytes > 0) {
    // Only rank 0 receives; its parts lie one after the other.
    std::string rests(root ? rest_bytes : 0, '\0');
    std::vector<int64_t> send_bytes(num_ranks), send_offsets(num_ranks);
    std::vector<int64_t> recv_bytes(num_ranks), recv_offsets(num_ranks);
    send_bytes[0] = std::max<int64_t>(0, own.num_bytes - kInlineBytes);
    int64_t offset = 0;
    for (int rank = 0; root && rank < num_ranks; ++rank) {
      recv_offsets[rank] = offset;
      recv_bytes[rank] =
          std::max<int64_t>(0, envelopes[rank].num_bytes - kInlineBytes);
      offset += recv_bytes[rank];
    }
    OCTET_RETURN_IF_ERROR(communicator.AllToAllV(
        {message.data() + std::min<int64_t>(own.num_bytes, kInlineBytes),
         send_offsets, send_bytes, rests.data(), recv_offsets, recv_bytes},
        op));
    for (int rank = 0; root && rank < num_ranks; ++rank) {
      if (recv_bytes[rank] == 0) continue;
      messages[rank].replace(kInlineBytes, recv_bytes[rank], rests,
                             recv_offsets[rank], recv_bytes[rank]);
    }
  }
  if (!root) messages.clear();
  return messages;
}

absl::Status AgreeOnStatus(Communicator& communicator, const absl::Status& own,
                           const OpInfo& op) {
  Outcome outcome;
  outcome.code = static_cast<int32_t>(own.code());
  outcome.text_bytes = static_cast<int32_t>(
      std::min(own.message().size(), sizeof(outcome.text)));
  std::copy_n(own.message().data(), outcome.text_bytes, outcome.text);
  std::vector<Outcome> outcomes(communicator.size());
  OCTET_RETURN_IF_ERROR(
      communicator.AllGather(&outcome, outcomes.data(), sizeof(outcome), op));
  for (const Outcome& found : outcomes) {
    if (found.code == 0) continue;
    const size_t bytes =
        std::clamp<int64_t>(found.text_bytes, 0, sizeof(found.text));
    return absl::Status(static_cast<absl::StatusCode>(found.code),
                        absl::string_view(found.text, bytes));
  }
  return absl::OkStatus();
}

}  // namespace octet
