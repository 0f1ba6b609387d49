// Decides what each rank computes in the next step. Pure and deterministic: no
// clock, no threads, no I/O; the same calls give the same schedules.
//
//   loop:  Add / Remove / SetPaused;  schedule = Schedule();  (run the step)
//          Commit(schedule);  Append(id, token) for each sampled token
//
// Rules (README.md says why):
//  * Waiting sequences are admitted first come, first served: when the oldest
//    finds no room, nobody behind it is admitted. A preempted sequence keeps
//    its age, so it is at the head again, with all its tokens.
//  * Home rank: the least tokens to compute there, counting the sequence's own
//    tokens that are not in that rank's prefix cache.
//  * A rank's step holds at most `max_step_tokens` tokens: one for each decode
//    first; what is left is shared evenly by the prompts in prefill, short
//    ones passing on what they do not need. Each gets at least one.
//  * When a growing sequence finds no block, the newest sequence of that rank
//    is preempted (a paused one first) and later computed again. The oldest
//    one is never preempted, so work always ends.
// Not thread-safe. Tested in tests/coordinator/scheduler_*_test.cc.
#ifndef OCTET_COORDINATOR_SCHEDULER_H_
#define OCTET_COORDINATOR_SCHEDULER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "coordinator/block_pool.h"
#include "coordinator/sequence.h"

namespace octet {

// Tokens [start, start + num_tokens) of a sequence, computed on its home rank.
struct ScheduledChunk {
  SequenceId id = 0;
  int32_t rank = 0;
  int32_t start = 0;
  int32_t num_tokens = 0;
  bool reaches_end = false;  // of the known tokens: the next one can be sampled
};

struct PreemptedSequence {
  SequenceId id = 0;
  int32_t rank = 0;
};

struct StepSchedule {
  std::vector<ScheduledChunk> chunks;  // by rank, then by age
  std::vector<PreemptedSequence> preempted;
};

class Scheduler {
 public:
  struct Options {
    std::vector<int32_t> rank_blocks;  // KV blocks of each rank
    int32_t block_tokens = 16;         // tokens of one block
    int32_t max_step_tokens = 512;     // per rank and step
    // Sequences of one rank that hold blocks at a time; at most
    // max_step_tokens of them, so that each gets a token in every step.
    int32_t max_running_per_rank = 64;
    bool prefix_cache = true;
  };

  explicit Scheduler(Options options);
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // INVALID_ARGUMENT when a sequence of `max_tokens` tokens, of which
  // `num_prompt_tokens` are given, fits no rank even alone.
  absl::Status CheckFits(int32_t num_prompt_tokens, int32_t max_tokens) const;

  // REQUIRES: a new id, at least one token, CheckFits is OK.
  void Add(NewSequence sequence);
  // Forgets a sequence and frees its blocks; unknown ids are ignored.
  void Remove(SequenceId id);
  // A paused sequence is not scheduled, and gives its blocks up first.
  void SetPaused(SequenceId id, bool paused);

  StepSchedule Schedule();
  // The step ran: its tokens are in the KV cache. Removed sequences are
  // skipped.
  void Commit(const StepSchedule& schedule);
  // Adds a sampled token. REQUIRES: all tokens before it are computed.
  void Append(SequenceId id, int32_t token);

  // The weights are other ones: nothing computed so far is of use. Running
  // sequences wait again, with all their tokens. REQUIRES: no schedule that is
  // not committed.
  void ForgetComputed();

  // nullptr when unknown; valid until the next call that is not const.
  const Sequence* Find(SequenceId id) const;
  const BlockPool& pool(int32_t rank) const { return ranks_[rank].pool; }

  int32_t num_sequences() const {
    return static_cast<int32_t>(sequences_.size());
  }
  int32_t num_waiting() const { return static_cast<int32_t>(waiting_.size()); }
  int64_t num_preemptions() const { return num_preemptions_; }
  int64_t blocks_total() const;
  int64_t blocks_held() const;

 private:
  struct Rank {
    BlockPool pool;
    std::map<int64_t, Sequence*> running;  // by order
  };

  int32_t BlocksFor(int32_t num_tokens) const;
  int32_t ProjectedBlocks(int32_t num_prompt_tokens, int32_t max_tokens) const;
  bool HeldByLeader(const Sequence& sequence) const;
  // The cached prefix on `rank` that the sequence may use.
  BlockPool::Prefix UsablePrefix(const Sequence& sequence,
                                 const Rank& rank) const;
  bool HasRoom(const Sequence& sequence, const Rank& rank,
               const BlockPool::Prefix& prefix) const;
  int64_t Cost(const Sequence& sequence, const Rank& rank,
               const BlockPool::Prefix& prefix) const;

  void GrowRunning(int32_t rank, StepSchedule* schedule);
  void AdmitWaiting(StepSchedule* schedule);
  bool TryAdmit(Sequence* sequence);
  bool EvictPausedFor(const Sequence& sequence, StepSchedule* schedule);
  void Admit(Sequence* sequence, int32_t rank, const BlockPool::Prefix& prefix);
  void Preempt(Sequence* sequence, StepSchedule* schedule);
  void ShareBudget(int32_t rank, StepSchedule* schedule) const;
  void ReleaseBlocks(Sequence* sequence);
  void PublishFullBlocks(Sequence* sequence);

  const Options options_;
  std::vector<Rank> ranks_;
  absl::flat_hash_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  std::map<int64_t, Sequence*> waiting_;  // by order
  int64_t next_order_ = 0;
  int64_t num_preemptions_ = 0;
};

}  // namespace octet

#endif  // OCTET_COORDINATOR_SCHEDULER_H_
