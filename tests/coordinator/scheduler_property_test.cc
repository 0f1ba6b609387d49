// Random workloads against a checker that knows nothing of the scheduler's
// inside: it plays the KV cache and the model, and looks at what it is told to
// compute.
#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "coordinator/scheduler.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/kv_model.h"

namespace octet {
namespace {

constexpr int32_t kAlphabet = 3;  // few, so that prompts share prefixes

struct Workload {
  const char* name;
  std::vector<int32_t> rank_blocks;
  int32_t block_tokens;
  int32_t max_step_tokens;
  int32_t max_running;
  int32_t max_prompt;
  int32_t max_new;
  bool prefix_cache;
  double remove_probability;
  double pause_probability;
};

class Checker {
 public:
  Checker(const Workload& workload, uint32_t seed)
      : workload_(workload), random_(seed), scheduler_(Options(workload)) {
    for (int32_t num_blocks : workload.rank_blocks) {
      caches_.emplace_back(num_blocks, workload.block_tokens);
    }
  }

  void AddRequest() {
    NewSequence sequence;
    sequence.tokens.resize(Uniform(1, workload_.max_prompt));
    for (int32_t& token : sequence.tokens) token = Uniform(0, kAlphabet - 1);
    // Half of the prompts continue a common beginning.
    if (Uniform(0, 1) == 0) {
      for (size_t i = 0; i < sequence.tokens.size() / 2; ++i) {
        sequence.tokens[i] = static_cast<int32_t>(i % kAlphabet);
      }
    }
    const int32_t num_prompt = static_cast<int32_t>(sequence.tokens.size());
    sequence.score = Uniform(0, 5) == 0;
    sequence.max_tokens =
        num_prompt + (sequence.score ? 0 : Uniform(1, workload_.max_new));
    if (!scheduler_.CheckFits(num_prompt, sequence.max_tokens).ok()) return;
    const int32_t copies =
        sequence.score || Uniform(0, 3) > 0 ? 1 : Uniform(2, 4);
    SequenceId leader = -1;
    for (int32_t i = 0; i < copies; ++i) {
      sequence.id = next_id_++;
      sequence.leader = leader;
      if (leader < 0) leader = sequence.id;
      live_[sequence.id] = {sequence.tokens, sequence.max_tokens, 0, false,
                            num_prompt};
      scheduler_.Add(sequence);
    }
  }

  void Disturb() {
    if (live_.empty()) return;
    if (Chance(workload_.remove_probability)) Forget(RandomLive());
    if (live_.empty()) return;
    if (Chance(workload_.pause_probability)) {
      const SequenceId id = RandomLive();
      live_[id].paused = !live_[id].paused;
      scheduler_.SetPaused(id, live_[id].paused);
    }
  }

  void UnpauseAll() {
    for (auto& [id, live] : live_) {
      live.paused = false;
      scheduler_.SetPaused(id, false);
    }
  }

  // Runs one step and checks it; false when the group had nothing to do.
  bool Step() {
    std::map<SequenceId, bool> was_waiting;
    for (const auto& [id, live] : live_) {
      was_waiting[id] = scheduler_.Find(id)->waiting();
    }
    const StepSchedule schedule = scheduler_.Schedule();
    for (const PreemptedSequence& victim : schedule.preempted) {
      live_[victim.id].computed = 0;
    }
    CheckOwnership();
    CheckAdmissionOrder(was_waiting);
    CheckBudgets(schedule);
    for (const ScheduledChunk& chunk : schedule.chunks) RunChunk(chunk);
    scheduler_.Commit(schedule);
    for (const ScheduledChunk& chunk : schedule.chunks) Advance(chunk);
    return !schedule.chunks.empty();
  }

  bool done() const { return live_.empty(); }
  size_t num_live() const { return live_.size(); }
  const Scheduler& scheduler() const { return scheduler_; }
  int64_t num_cached() const { return num_cached_; }

 private:
  struct Live {
    std::vector<int32_t> tokens;
    int32_t max_tokens = 0;
    int32_t computed = 0;
    bool paused = false;
    int32_t num_prompt = 0;
  };

  static Scheduler::Options Options(const Workload& workload) {
    Scheduler::Options options;
    options.rank_blocks = workload.rank_blocks;
    options.block_tokens = workload.block_tokens;
    options.max_step_tokens = workload.max_step_tokens;
    options.max_running_per_rank = workload.max_running;
    options.prefix_cache = workload.prefix_cache;
    return options;
  }

  int32_t Uniform(int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(random_);
  }
  bool Chance(double p) { return std::bernoulli_distribution(p)(random_); }
  SequenceId RandomLive() {
    auto it = live_.begin();
    std::advance(it, Uniform(0, static_cast<int32_t>(live_.size()) - 1));
    return it->first;
  }
  void Forget(SequenceId id) {
    scheduler_.Remove(id);
    live_.erase(id);
  }

  // Held blocks are those in the tables of running sequences, no block that
  // will be written is in two tables, and no table names a block twice.
  void CheckOwnership() {
    std::vector<std::map<int32_t, int>> users(caches_.size());
    for (const auto& [id, live] : live_) {
      const Sequence& sequence = *scheduler_.Find(id);
      if (sequence.waiting()) {
        EXPECT_TRUE(sequence.blocks.empty());
        continue;
      }
      const std::set<int32_t> distinct(sequence.blocks.begin(),
                                       sequence.blocks.end());
      EXPECT_EQ(distinct.size(), sequence.blocks.size()) << "sequence " << id;
      for (int32_t block : sequence.blocks) ++users[sequence.home_rank][block];
    }
    for (const auto& [id, live] : live_) {
      const Sequence& sequence = *scheduler_.Find(id);
      if (sequence.waiting()) continue;
      for (size_t i = sequence.num_computed / workload_.block_tokens;
           i < sequence.blocks.size(); ++i) {
        EXPECT_EQ(users[sequence.home_rank][sequence.blocks[i]], 1)
            << "sequence " << id << " will write a shared block";
      }
    }
    for (size_t rank = 0; rank < caches_.size(); ++rank) {
      EXPECT_EQ(scheduler_.pool(rank).num_held(),
                static_cast<int32_t>(users[rank].size()));
    }
  }

  // Nobody was admitted past an older one that could have been.
  void CheckAdmissionOrder(const std::map<SequenceId, bool>& was_waiting) {
    int64_t newest_admitted = -1;
    for (const auto& [id, live] : live_) {
      const Sequence& sequence = *scheduler_.Find(id);
      if (was_waiting.at(id) && !sequence.waiting()) {
        newest_admitted = std::max(newest_admitted, sequence.order);
      }
    }
    for (const auto& [id, live] : live_) {
      const Sequence& sequence = *scheduler_.Find(id);
      if (!was_waiting.at(id) || !sequence.waiting() || live.paused) continue;
      const auto leader = live_.find(sequence.leader);
      if (leader != live_.end() &&
          static_cast<int32_t>(leader->second.tokens.size()) ==
              leader->second.num_prompt) {
        continue;
      }
      EXPECT_GT(sequence.order, newest_admitted) << "sequence " << id;
    }
  }

  // The budget holds, and every running sequence moves on.
  void CheckBudgets(const StepSchedule& schedule) {
    std::map<int32_t, int32_t> tokens;
    std::set<SequenceId> scheduled;
    for (const ScheduledChunk& chunk : schedule.chunks) {
      tokens[chunk.rank] += chunk.num_tokens;
      EXPECT_GE(chunk.num_tokens, 1);
      EXPECT_TRUE(scheduled.insert(chunk.id).second);
    }
    for (const auto& [rank, count] : tokens) {
      EXPECT_LE(count, workload_.max_step_tokens);
    }
    for (const auto& [id, live] : live_) {
      const bool runs = !scheduler_.Find(id)->waiting() && !live.paused;
      EXPECT_EQ(scheduled.count(id) == 1, runs) << "sequence " << id;
    }
  }

  void RunChunk(const ScheduledChunk& chunk) {
    Live& live = live_.at(chunk.id);
    const Sequence& sequence = *scheduler_.Find(chunk.id);
    ASSERT_EQ(sequence.tokens, live.tokens);
    ASSERT_EQ(sequence.home_rank, chunk.rank);
    if (live.computed == 0) {
      // Just admitted: what is not computed was found in the cache.
      EXPECT_EQ(chunk.start % workload_.block_tokens, 0);
      num_cached_ += chunk.start;
      if (sequence.score) {
        EXPECT_LE(chunk.start, sequence.num_scored);
      }
    } else {
      EXPECT_EQ(chunk.start, live.computed);  // once, and in order
    }
    const auto hashes =
        caches_[chunk.rank].Run(sequence.blocks, chunk.start,
                                absl::MakeConstSpan(live.tokens)
                                    .subspan(chunk.start, chunk.num_tokens));
    ASSERT_TRUE(hashes.ok()) << hashes.status();
    live.computed = chunk.start + chunk.num_tokens;
    EXPECT_EQ(hashes->back(),
              test::PrefixHash(
                  absl::MakeConstSpan(live.tokens).first(live.computed)));
    EXPECT_EQ(chunk.reaches_end,
              live.computed == static_cast<int32_t>(live.tokens.size()));
  }

  void Advance(const ScheduledChunk& chunk) {
    if (!chunk.reaches_end) return;
    Live& live = live_.at(chunk.id);
    if (static_cast<int32_t>(live.tokens.size()) < live.max_tokens) {
      const int32_t token =
          static_cast<int32_t>(test::PrefixHash(live.tokens) % kAlphabet);
      live.tokens.push_back(token);
      scheduler_.Append(chunk.id, token);
    }
    if (static_cast<int32_t>(live.tokens.size()) >= live.max_tokens) {
      Forget(chunk.id);
    }
  }

  const Workload workload_;
  std::mt19937 random_;
  Scheduler scheduler_;
  std::vector<test::KvModel> caches_;
  std::map<SequenceId, Live> live_;
  SequenceId next_id_ = 1;
  int64_t num_cached_ = 0;
};

class SchedulerPropertyTest : public ::testing::TestWithParam<Workload> {};

TEST_P(SchedulerPropertyTest, EveryPlanIsRightAndEverythingEnds) {
  const Workload& workload = GetParam();
  int64_t preemptions = 0;
  int64_t cached = 0;
  for (uint32_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    Checker checker(workload, seed);
    for (int step = 0; step < 400; ++step) {
      if (checker.num_live() < 24) checker.AddRequest();
      checker.Disturb();
      checker.Step();
      if (::testing::Test::HasFailure()) return;
    }
    checker.UnpauseAll();
    // No livelock: every step computes something, so a bound exists; this one
    // is generous.
    for (int step = 0; step < 20000 && !checker.done(); ++step) {
      ASSERT_TRUE(checker.Step()) << "stuck with work to do";
    }
    EXPECT_TRUE(checker.done());
    EXPECT_EQ(checker.scheduler().blocks_held(), 0);
    EXPECT_EQ(checker.scheduler().num_sequences(), 0);
    preemptions += checker.scheduler().num_preemptions();
    cached += checker.num_cached();
  }
  // The workload does what its name says.
  if (std::string(workload.name).find("Tiny") != std::string::npos) {
    EXPECT_GT(preemptions, 50);
  }
  EXPECT_EQ(cached > 0, workload.prefix_cache);
}

INSTANTIATE_TEST_SUITE_P(
    Workloads, SchedulerPropertyTest,
    ::testing::Values(
        Workload{"Roomy", {200, 200, 200}, 4, 32, 16, 60, 30, true, 0.05, 0.05},
        Workload{"OneRank", {64}, 4, 16, 8, 40, 30, true, 0.05, 0.05},
        Workload{"TinyPools", {14, 9}, 4, 16, 8, 20, 30, true, 0.02, 0.05},
        Workload{"TinyPoolNoCache", {12}, 4, 16, 8, 20, 28, false, 0.02, 0.02},
        Workload{"TinyBlocks", {20}, 1, 8, 8, 10, 10, true, 0.02, 0.1},
        Workload{"OneTokenSteps", {30}, 4, 1, 8, 12, 8, true, 0.0, 0.05},
        Workload{"EightRanks",
                 {16, 16, 16, 16, 16, 16, 16, 16},
                 4,
                 8,
                 8,
                 30,
                 30,
                 true,
                 0.05,
                 0.05},
        Workload{"PausesOften", {24, 24}, 4, 16, 8, 24, 24, true, 0.01, 0.5}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace octet
