// Small messages of unknown size over a Communicator: from rank 0 to all, and
// from all to rank 0; and agreement on an outcome. A message that fits the
// envelope costs one collective, a larger one two.
#ifndef OCTET_WORKER_COMM_GROUP_MESSAGES_H_
#define OCTET_WORKER_COMM_GROUP_MESSAGES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/comm/communicator.h"

namespace octet {

// Every rank gets rank 0's `message`; what others pass is ignored. `op` names
// the collective and says how long to wait for the first part; the second has
// the communicator's own deadline.
absl::StatusOr<std::string> BroadcastMessage(Communicator& communicator,
                                             absl::string_view message,
                                             const OpInfo& op);

// Rank 0 gets every rank's message, in rank order; the others get nothing.
// INTERNAL names the rank whose message cannot be.
absl::StatusOr<std::vector<std::string>> GatherMessages(
    Communicator& communicator, absl::string_view message, const OpInfo& op);

// What the ranks found, so that all go on or none does: OK when `own` is OK on
// every rank, else on every rank the error of the lowest rank that has one
// (its sentence cut at 1000 bytes).
absl::Status AgreeOnStatus(Communicator& communicator, const absl::Status& own,
                           const OpInfo& op);

}  // namespace octet

#endif  // OCTET_WORKER_COMM_GROUP_MESSAGES_H_
