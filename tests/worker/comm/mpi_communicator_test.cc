// The MPI transport: the checks of all transports, with real processes as
// ranks. Failures have programs of their own (mpi_failure_test.cc), because
// they end the job.
#include <sys/resource.h>

#include <cstdlib>
#include <memory>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/worker/comm/mpi_test_main.h"
#include "tests/worker/comm/transport_checks.h"

namespace octet {
namespace {

class MpiTransport : public ::testing::Test {
 protected:
  void SetUp() override {
    auto comm = NewMpiCommunicator(
        test::Mpi(), {.timeout = absl::Seconds(60), .synchronize = {}});
    ASSERT_TRUE(comm.ok()) << comm.status();
    comm_ = std::move(*comm);
  }

  std::unique_ptr<Communicator> comm_;
};

TEST_F(MpiTransport, KnowsItsPlace) {
  EXPECT_EQ(comm_->rank(), test::Mpi().rank());
  EXPECT_EQ(comm_->size(), test::Mpi().size());
  EXPECT_EQ(comm_->transport(), "mpi");
  EXPECT_EQ(comm_->host(comm_->rank()), test::Mpi().host());
  std::set<std::string> hosts;
  for (int rank = 0; rank < comm_->size(); ++rank) {
    hosts.insert(comm_->host(rank));
  }
  // Started over the hosts of tests/integration/netns, the job is on them all.
  if (const char* names = std::getenv("OCTET_HOSTS")) {
    EXPECT_EQ(hosts, (std::set<std::string>(absl::StrSplit(names, ','))));
  } else {
    EXPECT_EQ(hosts.size(), 1u);
  }
}

TEST_F(MpiTransport, AllToAllVProvenance) {
  test::CheckAllToAllVProvenance(*comm_, 5);
}
TEST_F(MpiTransport, LargeParts) {
  // Several messages and a tail; less where that would be gigabytes in all.
  test::CheckLargeParts(*comm_, (comm_->size() <= 4 ? 16 << 20 : 2 << 20) + 77);
}
TEST_F(MpiTransport, AllGather) { test::CheckAllGather(*comm_); }
TEST_F(MpiTransport, AllReduce) { test::CheckAllReduce(*comm_); }
TEST_F(MpiTransport, Broadcast) { test::CheckBroadcast(*comm_); }
TEST_F(MpiTransport, Barrier) { test::CheckBarrier(*comm_); }
TEST_F(MpiTransport, RanksBehind) { test::CheckRanksBehind(*comm_); }
TEST_F(MpiTransport, RandomSequence) {
  test::CheckRandomSequence(*comm_, 11, 150);
}
TEST_F(MpiTransport, Counters) { test::CheckCounters(*comm_); }

TEST_F(MpiTransport, AnIdleRankSleeps) {
  if (comm_->size() == 1) GTEST_SKIP() << "one rank waits for nobody";
  char byte = 0;
  if (comm_->rank() == 0) absl::SleepFor(absl::Seconds(2));
  rusage before;
  getrusage(RUSAGE_SELF, &before);
  ASSERT_TRUE(comm_
                  ->Broadcast(&byte, 1, 0,
                              {.operation = "next plan",
                               .timeout = absl::InfiniteDuration()})
                  .ok());
  rusage after;
  getrusage(RUSAGE_SELF, &after);
  const absl::Duration used = absl::DurationFromTimeval(after.ru_utime) -
                              absl::DurationFromTimeval(before.ru_utime) +
                              absl::DurationFromTimeval(after.ru_stime) -
                              absl::DurationFromTimeval(before.ru_stime);
  RecordProperty("idle_cpu_ms", absl::StrCat(absl::ToInt64Milliseconds(used)));
  // Of 2 s, the first 2 ms of them awake.
  EXPECT_LT(used, absl::Milliseconds(400));
}

}  // namespace
}  // namespace octet
