// What survivors see, and that nothing is left running, when a rank of a real
// mpirun job is late, killed, stopped or wrong.
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/data.h"

namespace octet {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr int kRanks = 4;
constexpr int kFailing = 1;  // the rank that goes wrong in every scenario

struct RankResult {
  std::string code;  // empty: the rank did not live to tell
  std::string missing;
  std::string poisoned;
  std::string message;
};

struct JobResult {
  int exit_code = 0;
  std::vector<RankResult> ranks;
};

// Processes whose command line has `marker` in it.
int CountProcesses(const std::string& marker) {
  int count = 0;
  std::error_code ignored;  // processes come and go while we look
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc", ignored)) {
    std::ifstream file(entry.path() / "cmdline");
    const std::string command{std::istreambuf_iterator<char>(file), {}};
    count += absl::StrContains(command, marker) ? 1 : 0;
  }
  return count;
}

std::string MpirunOnThisHost() {
  return absl::StrCat("mpirun -n ", kRanks,
                      " --oversubscribe --bind-to none --mca btl vader,self");
}

// One rank on each of several hosts.
std::string MpirunOverHosts() {
  const std::string netns = test::SourcePath("tests/integration/netns");
  return absl::StrCat(netns, "/with_hosts ", kRanks, " ", netns,
                      "/mpirun_hosts 1");
}

JobResult RunJob(const std::string& scenario,
                 const std::string& mpirun = MpirunOnThisHost()) {
  test::TempDir directory;
  // `timeout` is the net under the test: a job that hangs is the bug.
  const std::string command = absl::StrCat(
      "timeout -k 5 60 ", mpirun, " ",
      test::BinaryPath("tests/bin/mpi_failure_rank"), " ", scenario, " ",
      directory.path(), " > ", directory.path(), "/log 2>&1");
  const int status = std::system(command.c_str());
  JobResult result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  for (int rank = 0; rank < kRanks; ++rank) {
    std::ifstream file(absl::StrCat(directory.path(), "/result.", rank));
    std::string line;
    std::getline(file, line);
    const std::vector<std::string> fields = absl::StrSplit(line, '|');
    if (fields.size() < 4) {
      result.ranks.emplace_back();
    } else {
      result.ranks.push_back({fields[0], fields[1], fields[2], fields[3]});
    }
  }
  for (int i = 0; i < 50 && CountProcesses(directory.path()) > 0; ++i) {
    absl::SleepFor(absl::Milliseconds(100));
  }
  EXPECT_EQ(CountProcesses(directory.path()), 0) << "left running";
  EXPECT_NE(result.exit_code, 0);
  EXPECT_NE(result.exit_code, 124) << "mpirun hung";
  return result;
}

void ExpectSurvivors(const JobResult& job, const std::string& code,
                     const std::string& missing, const std::string& text) {
  for (int rank = 0; rank < kRanks; ++rank) {
    if (rank == kFailing) continue;
    SCOPED_TRACE(absl::StrCat("rank ", rank));
    EXPECT_EQ(job.ranks[rank].code, code);
    EXPECT_EQ(job.ranks[rank].missing, missing) << job.ranks[rank].message;
    EXPECT_EQ(job.ranks[rank].poisoned, "poisoned");
    EXPECT_THAT(job.ranks[rank].message, HasSubstr(text));
  }
}

TEST(MpiFailureTest, LateRankIsNamedByAll) {
  for (const char* scenario : {"late", "late_large"}) {
    SCOPED_TRACE(scenario);
    const JobResult job = RunJob(scenario);
    ExpectSurvivors(job, "DEADLINE_EXCEEDED", "1",
                    "dispatch of layer 3 in step 17 (collective 1) waited");
    EXPECT_EQ(job.ranks[kFailing].code, "DEADLINE_EXCEEDED");
    EXPECT_THAT(job.ranks[kFailing].message,
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
  for (int rank = 0; rank < kRanks; ++rank) {
    EXPECT_EQ(job.ranks[rank].code,
              rank == kFailing ? "INVALID_ARGUMENT" : "UNAVAILABLE");
    EXPECT_THAT(job.ranks[rank].message,
                HasSubstr("root is rank 99, expected 0 to 3"));
  }
}

}  // namespace
}  // namespace octet
