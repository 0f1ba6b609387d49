// Ranks as threads of this process, for benchmarks.
#ifndef OCTET_LAUNCH_LOCAL_RANKS_H_
#define OCTET_LAUNCH_LOCAL_RANKS_H_

#include <functional>

#include "absl/status/status.h"
#include "worker/comm/communicator.h"

namespace octet {

// Calls `run_rank` on a thread of its own for each of `num_ranks` ranks of a
// new group, and `meanwhile` on the caller's thread now and then. Returns when
// all have ended. The first error of any rank aborts the others.
absl::Status RunLocalRanks(
    int num_ranks, const std::function<absl::Status(Communicator&)>& run_rank,
    const std::function<void()>& meanwhile);

}  // namespace octet

#endif  // OCTET_LAUNCH_LOCAL_RANKS_H_
