// One sequence as the scheduler sees it: tokens, progress, blocks.
#ifndef OCTET_COORDINATOR_SEQUENCE_H_
#define OCTET_COORDINATOR_SEQUENCE_H_

#include <cstdint>
#include <vector>

#include "coordinator/block_pool.h"

namespace octet {

using SequenceId = int64_t;

// What a caller hands to Scheduler::Add.
struct NewSequence {
  SequenceId id = 0;
  std::vector<int32_t> tokens;  // the prompt, at least one token
  int32_t max_tokens = 0;       // prompt and generated tokens together
  // Log-probabilities of the prompt instead of sampling: every position is
  // computed once, so none of them is taken from the prefix cache.
  bool score = false;
  // The same, and after a preemption all of it again: what is computed here is
  // returned, and other computations are not known to have had the same.
  bool compute_all = false;
  // A sequence with the same prompt whose prefill this one waits for, to find
  // it in the prefix cache; -1 = none. Must have been added before.
  SequenceId leader = -1;
};

struct Sequence {
  SequenceId id = 0;
  int64_t order = 0;  // of arrival; smaller is older and goes first
  std::vector<int32_t> tokens;
  int32_t num_prompt_tokens = 0;
  int32_t max_tokens = 0;
  bool score = false;
  bool compute_all = false;
  SequenceId leader = -1;

  bool paused = false;     // its reader is slow: not scheduled
  bool started = false;    // was admitted at least once
  bool first_step = true;  // no step with it is committed so far
  int32_t num_cached = 0;  // prompt tokens found in the cache, first admission
  int32_t num_scored = 0;  // positions whose log-probability was delivered
  int32_t home_rank = -1;  // -1 while it waits
  int32_t num_computed = 0;  // tokens whose keys and values are in `blocks`
  std::vector<int32_t> blocks;
  int32_t num_published = 0;  // leading blocks known to the prefix cache
  int64_t content_id = BlockPool::kRootContent;  // of the last published one

  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  int32_t num_uncomputed() const { return num_tokens() - num_computed; }
  bool waiting() const { return home_rank < 0; }
};

}  // namespace octet

#endif  // OCTET_COORDINATOR_SEQUENCE_H_
