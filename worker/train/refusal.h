// Two kinds of errors. A *refusal* is the same on every rank, before anything
// has changed, and the group goes on. Everything else ends the group: some
// ranks may have changed, or wait in a collective.
#ifndef OCTET_WORKER_TRAIN_REFUSAL_H_
#define OCTET_WORKER_TRAIN_REFUSAL_H_

#include "absl/status/status.h"

namespace octet {

// An error of a TrainingRun with any code but UNAVAILABLE, DEADLINE_EXCEEDED
// and INTERNAL is a refusal.
bool IsRefusal(const absl::Status& status);

// Of an error that this rank may be alone with: INTERNAL in place of a code
// that would read as a refusal. OK stays OK.
absl::Status EndsGroup(const absl::Status& status);

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_REFUSAL_H_
