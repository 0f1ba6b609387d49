// What survivors see, and that nothing is left running, when a rank of a real
// mpirun job is late, killed, stopped or wrong.
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/comm/failure_job.h"

namespace octet {
namespace {

using test::ExpectSurvivors;
using test::JobResult;
using test::kFailingRank;
using test::kFailureRanks;
using test::MpirunOverHosts;
using test::RankResult;
using ::testing::AnyOf;
using ::testing::HasSubstr;

JobResult RunJob(const std::string& scenario,
                 const std::string& mpirun = test::MpirunOnThisHost()) {
  return test::RunFailureJob("mpi_failure_rank", scenario, mpirun);
}

TEST(MpiFailureTest, LateRankIsNamedByAll) {
  for (const char* scenario : {"late", "late_large"}) {
    SCOPED_TRACE(scenario);
    const JobResult job = RunJob(scenario);
    ExpectSurvivors(job, "DEADLINE_EXCEEDED", "1",
                    "dispatch of layer 3 in step 17 (collective 1) waited");
    EXPECT_EQ(job.ranks[kFailingRank].code, "DEADLINE_EXCEEDED");
    EXPECT_THAT(job.ranks[kFailingRank].message,
                HasSubstr("for rank 1: no answer"));
  }
}

TEST(MpiFailureTest, KilledRankIsNamedWhenMpirunEndsTheJob) {
  for (const char* scenario : {"killed", "killed_large"}) {
    SCOPED_TRACE(scenario);
    const JobResult job = RunJob(scenario);
    ExpectSurvivors(job, "UNAVAILABLE", "1", "got SIGTERM");
  }
}

TEST(MpiFailureTest, StoppedRankIsNamedAtTheDeadline) {
  const JobResult job = RunJob("stopped");
  ExpectSurvivors(job, "DEADLINE_EXCEEDED", "1", "for rank 1");
}

TEST(MpiFailureTest, HostThatGoesOffTheNetworkIsNamed) {
  const JobResult job = RunJob("cut_off", MpirunOverHosts());
  if (job.exit_code == 77) GTEST_SKIP() << "no network namespaces here";
  ExpectSurvivors(job, "DEADLINE_EXCEEDED", "1", "for rank 1");
}

TEST(MpiFailureTest, UnequalSizesAreNamedOnEveryRank) {
  const JobResult job = RunJob("sizes");
  for (const RankResult& rank : job.ranks) {
    EXPECT_EQ(rank.code, "INTERNAL");
    EXPECT_THAT(rank.message,
                HasSubstr("rank 1 sends 68 bytes to rank 3, which expects 64"));
  }
}

TEST(MpiFailureTest, DifferentOperationsAreNamedOnEveryRank) {
  const JobResult job = RunJob("operations");
  for (const RankResult& rank : job.ranks) {
    EXPECT_EQ(rank.code, "INTERNAL");
    // Rank 0 may be in its next call when it sees the mistake.
    EXPECT_THAT(rank.message,
                AnyOf(HasSubstr("plan (Broadcast from rank 0, 8 bytes)"),
                      HasSubstr("next (Barrier) as collective 2")));
    EXPECT_THAT(rank.message, HasSubstr("count (AllReduceI64 sum, 8 bytes)"));
  }
}

TEST(MpiFailureTest, AbortReachesAnInfiniteWait) {
  const JobResult job = RunJob("aborted");
  for (const RankResult& rank : job.ranks) {
    EXPECT_EQ(rank.code, "UNAVAILABLE");
    EXPECT_THAT(rank.message, HasSubstr("expert 7 is on fire"));
  }
}

TEST(MpiFailureTest, BadArgumentEndsTheGroup) {
  const JobResult job = RunJob("bad_argument");
  for (int rank = 0; rank < kFailureRanks; ++rank) {
    EXPECT_EQ(job.ranks[rank].code,
              rank == kFailingRank ? "INVALID_ARGUMENT" : "UNAVAILABLE");
    EXPECT_THAT(job.ranks[rank].message,
                HasSubstr("root is rank 99, expected 0 to 3"));
  }
}

}  // namespace
}  // namespace octet
