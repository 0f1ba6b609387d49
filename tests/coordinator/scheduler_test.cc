#include "coordinator/scheduler.h"

#include <map>
#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace octet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Scheduler::Options OneRank(int32_t num_blocks, int32_t max_step_tokens) {
  Scheduler::Options options;
  options.rank_blocks = {num_blocks};
  options.block_tokens = 4;
  options.max_step_tokens = max_step_tokens;
  return options;
}

NewSequence MakeSequence(SequenceId id, int32_t num_tokens,
                         int32_t max_tokens = -1, int32_t first_token = -1) {
  NewSequence sequence;
  sequence.id = id;
  sequence.tokens.resize(num_tokens);
  std::iota(sequence.tokens.begin(), sequence.tokens.end(),
            first_token >= 0 ? first_token : static_cast<int32_t>(id * 10000));
  sequence.max_tokens = max_tokens < 0 ? num_tokens + 20 : max_tokens;
  return sequence;
}

// Runs one step in which every sampled token is `token`; tokens computed by id.
std::map<SequenceId, int32_t> Step(Scheduler& scheduler, int32_t token = 1) {
  const StepSchedule schedule = scheduler.Schedule();
  std::map<SequenceId, int32_t> computed;
  scheduler.Commit(schedule);
  for (const ScheduledChunk& chunk : schedule.chunks) {
    computed[chunk.id] = chunk.num_tokens;
    if (chunk.reaches_end && !scheduler.Find(chunk.id)->score) {
      scheduler.Append(chunk.id, token);
    }
  }
  return computed;
}

using Computed = std::map<SequenceId, int32_t>;

TEST(SchedulerTest, PrefillInChunksThenDecodes) {
  Scheduler scheduler(OneRank(100, 8));
  scheduler.Add(MakeSequence(1, 20));
  EXPECT_EQ(Step(scheduler), (Computed{{1, 8}}));
  EXPECT_EQ(Step(scheduler), (Computed{{1, 8}}));
  EXPECT_EQ(Step(scheduler), (Computed{{1, 4}}));
  EXPECT_EQ(Step(scheduler), (Computed{{1, 1}}));
  EXPECT_EQ(scheduler.Find(1)->num_tokens(), 22);
}

TEST(SchedulerTest, DecodesGoBeforePrefill) {
  Scheduler scheduler(OneRank(100, 8));
  scheduler.Add(MakeSequence(1, 3));
  Step(scheduler);
  scheduler.Add(MakeSequence(2, 100));
  EXPECT_EQ(Step(scheduler), (Computed{{1, 1}, {2, 7}}));
}

TEST(SchedulerTest, ALongPromptDoesNotStarveShortOnes) {
  Scheduler scheduler(OneRank(1000, 30));
  scheduler.Add(MakeSequence(1, 3000));
  Step(scheduler);
  scheduler.Add(MakeSequence(2, 4));
  scheduler.Add(MakeSequence(3, 12));
  // Even shares of 10; what 2 leaves is split between the others.
  EXPECT_EQ(Step(scheduler), (Computed{{1, 14}, {2, 4}, {3, 12}}));
}

TEST(SchedulerTest, AdmissionIsFirstComeFirstServed) {
  Scheduler scheduler(OneRank(10, 100));
  scheduler.Add(MakeSequence(1, 32, 33));
  scheduler.Add(MakeSequence(2, 36, 37));  // 9 blocks: must wait
  scheduler.Add(MakeSequence(3, 4, 5));    // would fit, but is behind
  EXPECT_EQ(Step(scheduler), (Computed{{1, 32}}));
  scheduler.Remove(1);
  EXPECT_EQ(Step(scheduler), (Computed{{2, 36}}));
  scheduler.Remove(2);
  EXPECT_EQ(Step(scheduler), (Computed{{3, 4}}));
}

TEST(SchedulerTest, NewestIsPreemptedAndComesBackWithItsTokens) {
  Scheduler scheduler(OneRank(5, 100));
  scheduler.Add(MakeSequence(1, 7, 20));
  scheduler.Add(MakeSequence(2, 6, 20));
  EXPECT_EQ(Step(scheduler), (Computed{{1, 7}, {2, 6}}));
  bool preempted = false;
  for (int i = 0; i < 20 && !preempted; ++i) {
    const StepSchedule schedule = scheduler.Schedule();
    scheduler.Commit(schedule);
    for (const auto& chunk : schedule.chunks) scheduler.Append(chunk.id, 1);
    if (schedule.preempted.empty()) continue;
    ASSERT_EQ(schedule.preempted.size(), 1u);
    EXPECT_EQ(schedule.preempted[0].id, 2);
    preempted = true;
  }
  ASSERT_TRUE(preempted);
  const int32_t known = scheduler.Find(2)->num_tokens();
  EXPECT_GT(known, 6);
  EXPECT_TRUE(scheduler.Find(2)->waiting());
  scheduler.Remove(1);
  // Its full blocks are still cached, so only the rest is computed again.
  const Computed computed = Step(scheduler);
  EXPECT_EQ(scheduler.Find(2)->num_tokens(), known + 1);
  EXPECT_LE(computed.at(2), known);
}

TEST(SchedulerTest, WhatCanNeverFitIsRefused) {
  Scheduler scheduler(OneRank(10, 100));
  EXPECT_TRUE(scheduler.CheckFits(30, 41).ok());
  const absl::Status status = scheduler.CheckFits(30, 42);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("needs 11 KV blocks of 4 tokens, a rank has 10"));
}

TEST(SchedulerTest, ASecondEqualPromptComputesOnlyItsTail) {
  Scheduler scheduler(OneRank(100, 100));
  scheduler.Add(MakeSequence(1, 16, 100, 500));
  Step(scheduler);
  scheduler.Add(MakeSequence(2, 16, 100, 500));
  EXPECT_EQ(Step(scheduler), (Computed{{1, 1}, {2, 4}}));
  EXPECT_EQ(scheduler.Find(2)->num_cached, 12);
}

TEST(SchedulerTest, ContinuationsShareTheirPrompt) {
  Scheduler scheduler(OneRank(100, 100));
  scheduler.Add(MakeSequence(1, 17, 100, 500));
  NewSequence follower = MakeSequence(2, 17, 100, 500);
  follower.leader = 1;
  scheduler.Add(follower);
  EXPECT_EQ(Step(scheduler), (Computed{{1, 17}}));
  EXPECT_EQ(Step(scheduler), (Computed{{1, 1}, {2, 1}}));
  EXPECT_EQ(scheduler.pool(0).num_held(), 4 + 2);  // 4 shared, a tail each
}

TEST(SchedulerTest, AFollowerOutlivesItsLeader) {
  Scheduler scheduler(OneRank(100, 4));
  scheduler.Add(MakeSequence(1, 17, 100, 500));
  NewSequence follower = MakeSequence(2, 17, 100, 500);
  follower.leader = 1;
  scheduler.Add(follower);
  EXPECT_EQ(Step(scheduler), (Computed{{1, 4}}));
  scheduler.Remove(1);
  EXPECT_EQ(Step(scheduler), (Computed{{2, 4}}));
}

TEST(SchedulerTest, ScoredPositionsAreNotTakenFromTheCache) {
  Scheduler scheduler(OneRank(100, 100));
  scheduler.Add(MakeSequence(1, 16, 100, 500));
  Step(scheduler);
  NewSequence score = MakeSequence(2, 16, 16, 500);
  score.score = true;
  scheduler.Add(score);
  EXPECT_EQ(Step(scheduler), (Computed{{1, 1}, {2, 16}}));
}

TEST(SchedulerTest, ARunningSequenceIsNotComputedTwiceAfterScoring) {
  Scheduler scheduler(OneRank(100, 8));
  NewSequence score = MakeSequence(1, 20, 20);
  score.score = true;
  scheduler.Add(score);
  EXPECT_EQ(Step(scheduler), (Computed{{1, 8}}));
  EXPECT_EQ(scheduler.Find(1)->num_scored, 8);
}

TEST(SchedulerTest, PausedSequencesKeepStillAndGiveWay) {
  Scheduler scheduler(OneRank(4, 100));
  scheduler.Add(MakeSequence(1, 12, 14));
  Step(scheduler);
  scheduler.SetPaused(1, true);
  EXPECT_THAT(Step(scheduler), IsEmpty());
  scheduler.Add(MakeSequence(2, 8, 9));
  const StepSchedule schedule = scheduler.Schedule();
  ASSERT_EQ(schedule.preempted.size(), 1u);
  EXPECT_EQ(schedule.preempted[0].id, 1);
  ASSERT_EQ(schedule.chunks.size(), 1u);
  EXPECT_EQ(schedule.chunks[0].id, 2);
  scheduler.Commit(schedule);
  scheduler.Remove(2);
  EXPECT_THAT(Step(scheduler), IsEmpty());
  scheduler.SetPaused(1, false);
  EXPECT_EQ(Step(scheduler).count(1), 1u);
}

TEST(SchedulerTest, LoadSpreadsOverRanks) {
  Scheduler::Options options = OneRank(100, 100);
  options.rank_blocks = {100, 100, 100};
  Scheduler scheduler(options);
  for (int i = 1; i <= 6; ++i) scheduler.Add(MakeSequence(i, 20));
  std::map<int32_t, int> per_rank;
  for (const auto& chunk : scheduler.Schedule().chunks) ++per_rank[chunk.rank];
  EXPECT_EQ(per_rank, (std::map<int32_t, int>{{0, 2}, {1, 2}, {2, 2}}));
}

TEST(SchedulerTest, ACachedPrefixAttracts) {
  Scheduler::Options options = OneRank(100, 200);
  options.rank_blocks = {100, 100};
  Scheduler scheduler(options);
  scheduler.Add(MakeSequence(1, 80, 100, 500));
  Step(scheduler);
  const int32_t home = scheduler.Find(1)->home_rank;
  scheduler.Add(MakeSequence(2, 84, 100, 500));
  Step(scheduler);
  EXPECT_EQ(scheduler.Find(2)->home_rank, home);
  EXPECT_EQ(scheduler.Find(2)->num_cached, 80);
}

TEST(SchedulerTest, NewWeightsMakeAllThatIsComputedWorthless) {
  Scheduler scheduler(OneRank(100, 64));
  scheduler.Add(MakeSequence(1, 8));
  Step(scheduler);
  scheduler.Remove(1);
  scheduler.Add(MakeSequence(2, 8));
  Step(scheduler);
  EXPECT_EQ(Step(scheduler), (Computed{{2, 1}}));
  scheduler.ForgetComputed();
  EXPECT_EQ(scheduler.blocks_held(), 0);
  // The running one is computed again with what it has sampled; a prompt that
  // was cached is not found.
  scheduler.Add(MakeSequence(3, 8, -1, 10000));
  EXPECT_EQ(Step(scheduler), (Computed{{2, 10}, {3, 8}}));
  EXPECT_EQ(scheduler.Find(3)->num_cached, 0);
  EXPECT_EQ(scheduler.num_preemptions(), 0);
}

TEST(SchedulerTest, RemoveFreesEverything) {
  Scheduler scheduler(OneRank(100, 8));
  scheduler.Add(MakeSequence(1, 20));
  scheduler.Add(MakeSequence(2, 20));
  Step(scheduler);
  scheduler.Remove(1);
  scheduler.Remove(2);
  scheduler.Remove(3);
  EXPECT_EQ(scheduler.blocks_held(), 0);
  EXPECT_EQ(scheduler.num_sequences(), 0);
  EXPECT_THAT(scheduler.Schedule().chunks, IsEmpty());
}

}  // namespace
}  // namespace octet
