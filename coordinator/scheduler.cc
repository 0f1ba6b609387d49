#include "coordinator/scheduler.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"

namespace octet {
namespace {

// A running sequence adds one token to each of many steps; its weight in the
// choice of a home rank, in tokens.
constexpr int64_t kDecodeWeight = 16;

Scheduler::Options Checked(Scheduler::Options options) {
  OCTET_CHECK(!options.rank_blocks.empty());
  OCTET_CHECK(options.max_step_tokens > 0);
  OCTET_CHECK(options.max_running_per_rank > 0);
  options.max_running_per_rank =
      std::min(options.max_running_per_rank, options.max_step_tokens);
  return options;
}

// The sequence to give up: the newest paused one, else the newest.
Sequence* Victim(const std::map<int64_t, Sequence*>& running) {
  for (auto it = running.rbegin(); it != running.rend(); ++it) {
    if (it->second->paused) return it->second;
  }
  return running.rbegin()->second;
}

}  // namespace

Scheduler::Scheduler(Options options) : options_(Checked(std::move(options))) {
  for (int32_t num_blocks : options_.rank_blocks) {
    ranks_.push_back(
        {BlockPool(num_blocks, options_.block_tokens, options_.prefix_cache),
         {}});
  }
}

int32_t Scheduler::BlocksFor(int32_t num_tokens) const {
  return (num_tokens + options_.block_tokens - 1) / options_.block_tokens;
}

int32_t Scheduler::ProjectedBlocks(int32_t num_prompt_tokens,
                                   int32_t max_tokens) const {
  // The last sampled token is returned but never computed.
  return BlocksFor(std::max(num_prompt_tokens, max_tokens - 1));
}

absl::Status Scheduler::CheckFits(int32_t num_prompt_tokens,
                                  int32_t max_tokens) const {
  const int32_t projected = ProjectedBlocks(num_prompt_tokens, max_tokens);
  const int32_t available = *std::max_element(options_.rank_blocks.begin(),
                                              options_.rank_blocks.end());
  if (projected <= available) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("prompt of ", num_prompt_tokens, " tokens with at most ",
                   max_tokens - num_prompt_tokens, " new ones needs ",
                   projected, " KV blocks of ", options_.block_tokens,
                   " tokens, a rank has ", available));
}

void Scheduler::Add(NewSequence sequence) {
  OCTET_CHECK(!sequence.tokens.empty());
  auto added = std::make_unique<Sequence>();
  added->id = sequence.id;
  added->order = next_order_++;
  added->tokens = std::move(sequence.tokens);
  added->num_prompt_tokens = added->num_tokens();
  added->max_tokens = sequence.max_tokens;
  added->score = sequence.score;
  added->compute_all = sequence.compute_all;
  added->leader = sequence.leader;
  waiting_[added->order] = added.get();
  const bool is_new = sequences_.emplace(sequence.id, std::move(added)).second;
  OCTET_CHECK(is_new) << "sequence " << sequence.id;
}

void Scheduler::Remove(SequenceId id) {
  const auto it = sequences_.find(id);
  if (it == sequences_.end()) return;
  Sequence* sequence = it->second.get();
  if (sequence->waiting()) {
    waiting_.erase(sequence->order);
  } else {
    ReleaseBlocks(sequence);
  }
  sequences_.erase(it);
}

void Scheduler::SetPaused(SequenceId id, bool paused) {
  const auto it = sequences_.find(id);
  if (it != sequences_.end()) it->second->paused = paused;
}

const Sequence* Scheduler::Find(SequenceId id) const {
  const auto it = sequences_.find(id);
  return it == sequences_.end() ? nullptr : it->second.get();
}

int64_t Scheduler::blocks_total() const {
  int64_t total = 0;
  for (const Rank& rank : ranks_) total += rank.pool.num_blocks();
  return total;
}

int64_t Scheduler::blocks_held() const {
  int64_t held = 0;
  for (const Rank& rank : ranks_) held += rank.pool.num_held();
  return held;
}

StepSchedule Scheduler::Schedule() {
  StepSchedule schedule;
  const int32_t num_ranks = static_cast<int32_t>(ranks_.size());
  for (int32_t rank = 0; rank < num_ranks; ++rank) {
    GrowRunning(rank, &schedule);
  }
  AdmitWaiting(&schedule);
  for (int32_t rank = 0; rank < num_ranks; ++rank) {
    ShareBudget(rank, &schedule);
  }
  return schedule;
}

void Scheduler::GrowRunning(int32_t rank, StepSchedule* schedule) {
  auto& running = ranks_[rank].running;
  BlockPool& pool = ranks_[rank].pool;
  // By age: a victim is newer than, or the same as, the one that grows, or it
  // is paused; so no sequence that has grown already is given up.
  for (auto it = running.begin(); it != running.end();) {
    const int64_t order = it->first;
    Sequence* sequence = it->second;
    const size_t needed = BlocksFor(sequence->num_tokens());
    while (!sequence->paused && !sequence->waiting() &&
           sequence->blocks.size() < needed) {
      if (pool.num_available() == 0) {
        Preempt(Victim(running), schedule);
      } else {
        sequence->blocks.push_back(pool.Allocate());
      }
    }
    it = running.upper_bound(order);
  }
}

void Scheduler::AdmitWaiting(StepSchedule* schedule) {
  // A copy: admission changes waiting_, and a preempted paused sequence that
  // joins it meanwhile is not to be admitted anyway.
  const std::vector<std::pair<int64_t, Sequence*>> waiting(waiting_.begin(),
                                                           waiting_.end());
  for (const auto& [order, sequence] : waiting) {
    if (sequence->paused || HeldByLeader(*sequence)) continue;
    if (!TryAdmit(sequence) &&
        !(EvictPausedFor(*sequence, schedule) && TryAdmit(sequence))) {
      return;
    }
  }
}

bool Scheduler::HeldByLeader(const Sequence& sequence) const {
  if (!options_.prefix_cache || sequence.compute_all) return false;
  const Sequence* leader = Find(sequence.leader);
  return leader != nullptr && leader->num_tokens() == leader->num_prompt_tokens;
}

BlockPool::Prefix Scheduler::UsablePrefix(const Sequence& sequence,
                                          const Rank& rank) const {
  if (sequence.compute_all) return {};
  // The last token is computed for its logits; positions to score, for theirs.
  const int32_t limit =
      sequence.score ? sequence.num_scored : sequence.num_tokens() - 1;
  return rank.pool.FindPrefix(
      absl::MakeConstSpan(sequence.tokens).first(limit));
}

bool Scheduler::HasRoom(const Sequence& sequence, const Rank& rank,
                        const BlockPool::Prefix& prefix) const {
  const int32_t num_running = static_cast<int32_t>(rank.running.size());
  if (num_running >= options_.max_running_per_rank) return false;
  if (rank.pool.num_blocks() <
      ProjectedBlocks(sequence.num_prompt_tokens, sequence.max_tokens)) {
    return false;
  }
  const int32_t num_prefix = static_cast<int32_t>(prefix.blocks.size());
  const int32_t taken = BlocksFor(sequence.num_tokens()) - num_prefix +
                        rank.pool.CountCached(prefix.blocks);
  // One spare block for each running sequence, so that an admission does not
  // cause a preemption at once.
  return taken + num_running <= rank.pool.num_available();
}

int64_t Scheduler::Cost(const Sequence& sequence, const Rank& rank,
                        const BlockPool::Prefix& prefix) const {
  int64_t cost =
      sequence.num_tokens() -
      static_cast<int64_t>(prefix.blocks.size()) * options_.block_tokens;
  for (const auto& [order, running] : rank.running) {
    cost += running->num_uncomputed() + kDecodeWeight;
  }
  return cost;
}

bool Scheduler::TryAdmit(Sequence* sequence) {
  int32_t best_rank = -1;
  int64_t best_cost = std::numeric_limits<int64_t>::max();
  int32_t best_available = 0;
  BlockPool::Prefix best_prefix;
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    BlockPool::Prefix prefix = UsablePrefix(*sequence, ranks_[rank]);
    if (!HasRoom(*sequence, ranks_[rank], prefix)) continue;
    const int64_t cost = Cost(*sequence, ranks_[rank], prefix);
    const int32_t available = ranks_[rank].pool.num_available();
    if (cost < best_cost || (cost == best_cost && available > best_available)) {
      best_rank = static_cast<int32_t>(rank);
      best_cost = cost;
      best_available = available;
      best_prefix = std::move(prefix);
    }
  }
  if (best_rank < 0) return false;
  Admit(sequence, best_rank, best_prefix);
  return true;
}

bool Scheduler::EvictPausedFor(const Sequence& sequence,
                               StepSchedule* schedule) {
  for (Rank& rank : ranks_) {
    std::vector<Sequence*> paused;  // newest first
    int32_t num_blocks = rank.pool.num_available();
    for (auto it = rank.running.rbegin(); it != rank.running.rend(); ++it) {
      if (!it->second->paused) continue;
      paused.push_back(it->second);
      num_blocks += static_cast<int32_t>(it->second->blocks.size());
    }
    if (num_blocks < BlocksFor(sequence.num_tokens())) continue;
    for (Sequence* victim : paused) {
      Preempt(victim, schedule);
      if (HasRoom(sequence, rank, UsablePrefix(sequence, rank))) return true;
    }
  }
  return false;
}

void Scheduler::Admit(Sequence* sequence, int32_t rank,
                      const BlockPool::Prefix& prefix) {
  BlockPool& pool = ranks_[rank].pool;
  pool.Hold(prefix.blocks);
  sequence->blocks = prefix.blocks;
  sequence->content_id = prefix.content_id;
  sequence->num_published = static_cast<int32_t>(prefix.blocks.size());
  sequence->num_computed = sequence->num_published * options_.block_tokens;
  const size_t needed = BlocksFor(sequence->num_tokens());
  while (sequence->blocks.size() < needed) {
    sequence->blocks.push_back(pool.Allocate());
  }
  if (!sequence->started) sequence->num_cached = sequence->num_computed;
  sequence->started = true;
  sequence->home_rank = rank;
  waiting_.erase(sequence->order);
  ranks_[rank].running[sequence->order] = sequence;
}

void Scheduler::Preempt(Sequence* sequence, StepSchedule* schedule) {
  schedule->preempted.push_back({sequence->id, sequence->home_rank});
  ++num_preemptions_;
  ReleaseBlocks(sequence);
  waiting_[sequence->order] = sequence;
}

void Scheduler::ForgetComputed() {
  for (Rank& rank : ranks_) {
    while (!rank.running.empty()) {
      Sequence* sequence = rank.running.begin()->second;
      ReleaseBlocks(sequence);
      waiting_[sequence->order] = sequence;
    }
    rank.pool.ForgetContents();
  }
}

void Scheduler::ReleaseBlocks(Sequence* sequence) {
  Rank& rank = ranks_[sequence->home_rank];
  rank.pool.Release(sequence->blocks);
  rank.running.erase(sequence->order);
  sequence->blocks.clear();
  sequence->home_rank = -1;
  sequence->num_computed = 0;
  sequence->num_published = 0;
  sequence->content_id = BlockPool::kRootContent;
}

void Scheduler::ShareBudget(int32_t rank, StepSchedule* schedule) const {
  std::vector<const Sequence*> prefills;
  absl::flat_hash_map<SequenceId, int32_t> share;
  int32_t left = options_.max_step_tokens;
  for (const auto& [order, sequence] : ranks_[rank].running) {
    if (sequence->paused) continue;
    if (sequence->num_uncomputed() > 1) {
      prefills.push_back(sequence);
    } else {
      share[sequence->id] = 1;
      --left;
    }
  }
  // Shortest first, so that what one does not need goes to the others.
  std::sort(prefills.begin(), prefills.end(),
            [](const Sequence* a, const Sequence* b) {
              return std::pair(a->num_uncomputed(), a->order) <
                     std::pair(b->num_uncomputed(), b->order);
            });
  int32_t num_left = static_cast<int32_t>(prefills.size());
  for (const Sequence* sequence : prefills) {
    const int32_t tokens =
        std::min(sequence->num_uncomputed(), left / num_left);
    share[sequence->id] = tokens;
    left -= tokens;
    --num_left;
  }
  for (const auto& [order, sequence] : ranks_[rank].running) {
    const auto it = share.find(sequence->id);
    if (it == share.end()) continue;
    schedule->chunks.push_back({sequence->id, rank, sequence->num_computed,
                                it->second,
                                it->second == sequence->num_uncomputed()});
  }
}

void Scheduler::Commit(const StepSchedule& schedule) {
  for (const ScheduledChunk& chunk : schedule.chunks) {
    const auto it = sequences_.find(chunk.id);
    if (it == sequences_.end()) continue;
    Sequence* sequence = it->second.get();
    OCTET_CHECK(sequence->num_computed == chunk.start)
        << "sequence " << chunk.id;
    sequence->num_computed += chunk.num_tokens;
    sequence->first_step = false;
    if (sequence->score) {
      sequence->num_scored =
          std::max(sequence->num_scored, sequence->num_computed);
    }
    PublishFullBlocks(sequence);
  }
}

void Scheduler::PublishFullBlocks(Sequence* sequence) {
  BlockPool& pool = ranks_[sequence->home_rank].pool;
  const auto tokens = absl::MakeConstSpan(sequence->tokens);
  const int32_t step = options_.block_tokens;
  while ((sequence->num_published + 1) * step <= sequence->num_computed) {
    const int32_t idx = sequence->num_published++;
    sequence->content_id =
        pool.Publish(sequence->blocks[idx], sequence->content_id,
                     tokens.subspan(idx * step, step));
  }
}

void Scheduler::Append(SequenceId id, int32_t token) {
  const auto it = sequences_.find(id);
  OCTET_CHECK(it != sequences_.end()) << "sequence " << id;
  Sequence* sequence = it->second.get();
  OCTET_CHECK(sequence->num_uncomputed() == 0) << "sequence " << id;
  sequence->tokens.push_back(token);
}

}  // namespace octet
