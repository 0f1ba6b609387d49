// Is a plan one that this group can run? Every rank asks before its first
// collective, about the whole plan, and so all ranks agree on the answer.
#ifndef OCTET_WORKER_SERVE_PLAN_CHECK_H_
#define OCTET_WORKER_SERVE_PLAN_CHECK_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "proto/worker.pb.h"

namespace octet {

// The same on every rank.
struct PlanLimits {
  int64_t vocab_size = 0;
  int64_t max_position = 0;     // tokens of a sequence
  int64_t max_step_tokens = 0;  // of one rank in one step
  int block_tokens = 0;
  std::vector<int64_t> rank_blocks;  // [R] KV blocks of each rank
};

// OK, or INVALID_ARGUMENT: one sentence with the chunk's index, the field, what
// was found and what was expected.
absl::Status CheckForwardPlan(const v1::ForwardPlan& plan,
                              const PlanLimits& limits);

}  // namespace octet

#endif  // OCTET_WORKER_SERVE_PLAN_CHECK_H_
