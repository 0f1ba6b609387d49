// Jobs of kFailureRanks MPI processes in which rank kFailingRank goes wrong,
// and what every rank that lived says about it.
#ifndef OCTET_TESTS_WORKER_COMM_FAILURE_JOB_H_
#define OCTET_TESTS_WORKER_COMM_FAILURE_JOB_H_

#include <string>
#include <vector>

namespace octet::test {

constexpr int kFailureRanks = 4;
constexpr int kFailingRank = 1;

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

// Ranks of this host.
std::string MpirunOnThisHost();
// One rank on each of several hosts (tests/integration/netns).
std::string MpirunOverHosts();

// Runs `program` of tests/bin (failure_rank.h) and checks that it ends, with an
// error, and leaves nothing running. `environment`: "A=b C=d" or "".
JobResult RunFailureJob(const std::string& program, const std::string& scenario,
                        const std::string& mpirun = MpirunOnThisHost(),
                        const std::string& environment = "");

// All ranks but the failing one.
void ExpectSurvivors(const JobResult& job, const std::string& code,
                     const std::string& missing, const std::string& text);

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_COMM_FAILURE_JOB_H_
