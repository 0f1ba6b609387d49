#include "tests/worker/comm/failure_job.h"

#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/data.h"

namespace octet::test {
namespace {

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

}  // namespace

std::string MpirunOnThisHost() {
  return absl::StrCat("mpirun -n ", kFailureRanks,
                      " --oversubscribe --bind-to none --mca btl vader,self");
}

// One rank on each of several hosts.
std::string MpirunOverHosts() {
  const std::string netns = SourcePath("tests/integration/netns");
  return absl::StrCat(netns, "/with_hosts ", kFailureRanks, " ", netns,
                      "/mpirun_hosts 1");
}

JobResult RunFailureJob(const std::string& program, const std::string& scenario,
                        const std::string& mpirun,
                        const std::string& environment) {
  TempDir directory;
  // `timeout` is the net under the test: a job that hangs is the bug.
  const std::string command = absl::StrCat(
      environment, " timeout -k 5 60 ", mpirun, " ",
      BinaryPath(absl::StrCat("tests/bin/", program)), " ", scenario, " ",
      directory.path(), " > ", directory.path(), "/log 2>&1");
  const int status = std::system(command.c_str());
  JobResult result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  for (int rank = 0; rank < kFailureRanks; ++rank) {
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
  for (int rank = 0; rank < kFailureRanks; ++rank) {
    if (rank == kFailingRank) continue;
    SCOPED_TRACE(absl::StrCat("rank ", rank));
    EXPECT_EQ(job.ranks[rank].code, code);
    EXPECT_EQ(job.ranks[rank].missing, missing) << job.ranks[rank].message;
    EXPECT_EQ(job.ranks[rank].poisoned, "poisoned");
    EXPECT_THAT(job.ranks[rank].message, ::testing::HasSubstr(text));
  }
}

}  // namespace octet::test
