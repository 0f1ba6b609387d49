// What survivors see, and that nothing is left running, when a rank of a job on
// emulated GPUs is late, killed, stopped or wrong: on its host, and on its GPU
// after its host has entered the call.
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/comm/failure_job.h"

namespace octet {
namespace {

using test::ExpectSurvivors;
using test::JobResult;
using test::kFailingRank;
using test::kFailureRanks;
using test::RankResult;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr char kDispatch[] = "dispatch of layer 3 in step 17 (collective 2)";

// A mismatch that NCCL is to find becomes its asynchronous error.
JobResult RunJob(const std::string& scenario) {
  return test::RunFailureJob("nccl_failure_rank_plain", scenario,
                             test::MpirunOnThisHost(),
                             "CUDA_EMU_NCCL_ERRORS=async");
}

TEST(NcclFailureTest, LateRankIsNamedByAll) {
  for (const char* scenario : {"late", "late_large"}) {
    SCOPED_TRACE(scenario);
    const JobResult job = RunJob(scenario);
    ExpectSurvivors(job, "DEADLINE_EXCEEDED", "1", kDispatch);
    EXPECT_THAT(job.ranks[kFailingRank].message,
                HasSubstr("for rank 1: no answer"));
  }
}

TEST(NcclFailureTest, KilledRankIsNamed) {
  ExpectSurvivors(RunJob("killed"), "UNAVAILABLE", "1", kDispatch);
}

TEST(NcclFailureTest, StoppedRankIsNamedAtTheDeadline) {
  ExpectSurvivors(RunJob("stopped"), "DEADLINE_EXCEEDED", "1", kDispatch);
}

TEST(NcclFailureTest, UnequalSizesAreNamedOnEveryRank) {
  const JobResult job = RunJob("sizes");
  for (const RankResult& rank : job.ranks) {
    EXPECT_EQ(rank.code, "INTERNAL");
    EXPECT_EQ(rank.poisoned, "poisoned");
    EXPECT_THAT(rank.message, HasSubstr(kDispatch));
    EXPECT_THAT(rank.message,
                HasSubstr("rank 1 sends 68 bytes to rank 3, which expects 64"));
  }
}

// Sizes that only NCCL sees, before or after the group is on the stream: the
// receiver has its error, the others hear it.
TEST(NcclFailureTest, AsynchronousErrorOfNccl) {
  for (const char* scenario : {"lie", "lie_late"}) {
    SCOPED_TRACE(scenario);
    const JobResult job = RunJob(scenario);
    const RankResult& receiver = job.ranks[3];
    EXPECT_EQ(receiver.code, "INTERNAL");
    EXPECT_THAT(receiver.message, HasSubstr(kDispatch));
    EXPECT_THAT(receiver.message, HasSubstr("from rank 1, which sends 68"));
    for (const RankResult& rank : job.ranks) {
      EXPECT_EQ(rank.poisoned, "poisoned");
      EXPECT_THAT(rank.code, AnyOf("INTERNAL", "UNAVAILABLE"));
      EXPECT_THAT(rank.message, HasSubstr("which sends 68"));
    }
  }
}

// The hosts have met; the first to lose patience asks who is behind, and tells
// the others.
void ExpectGpuDeadline(const JobResult& job) {
  for (int rank = 0; rank < kFailureRanks; ++rank) {
    if (rank == kFailingRank) continue;
    SCOPED_TRACE(rank);
    EXPECT_THAT(job.ranks[rank].code,
                AnyOf("DEADLINE_EXCEEDED", "UNAVAILABLE"));
    EXPECT_EQ(job.ranks[rank].poisoned, "poisoned");
    EXPECT_THAT(job.ranks[rank].message, HasSubstr(kDispatch));
    EXPECT_THAT(job.ranks[rank].message,
                HasSubstr("for rank 1: every rank has come, but the GPUs did "
                          "not finish"));
  }
}

TEST(NcclFailureTest, LateGpuEndsAtTheDeadline) {
  ExpectGpuDeadline(RunJob("gpu_late"));
}

TEST(NcclFailureTest, RankStoppedOnItsGpuEndsAtTheDeadline) {
  ExpectGpuDeadline(RunJob("gpu_stopped"));
}

TEST(NcclFailureTest, RankKilledOnItsGpuEndsTheWait) {
  const JobResult job = RunJob("gpu_killed");
  for (int rank = 0; rank < kFailureRanks; ++rank) {
    if (rank == kFailingRank) continue;
    SCOPED_TRACE(rank);
    EXPECT_EQ(job.ranks[rank].code, "UNAVAILABLE");
    EXPECT_THAT(job.ranks[rank].message,
                HasSubstr("dispatch of layer 3 in step 17"));
    EXPECT_THAT(
        job.ranks[rank].message,
        AllOf(HasSubstr("SIGTERM"), HasSubstr("no answer from rank 1")));
  }
}

TEST(NcclFailureTest, AbortReachesTheOthers) {
  for (const RankResult& rank : RunJob("aborted").ranks) {
    EXPECT_EQ(rank.code, "UNAVAILABLE");
    EXPECT_THAT(rank.message, HasSubstr("expert 7 is on fire"));
  }
}

TEST(NcclFailureTest, BadArgumentsEndTheGroup) {
  for (const auto& [scenario, text] :
       {std::pair("bad_argument",
                  "from rank 3 has -1 bytes, expected 0 or more"),
        std::pair("wrong_memory", "on a stream, expected host memory")}) {
    const JobResult job = RunJob(scenario);
    for (int rank = 0; rank < kFailureRanks; ++rank) {
      EXPECT_EQ(job.ranks[rank].code,
                rank == kFailingRank ? "INVALID_ARGUMENT" : "UNAVAILABLE");
      EXPECT_THAT(job.ranks[rank].message, HasSubstr(text));
    }
  }
}

}  // namespace
}  // namespace octet
