// The local transport: the checks of all transports over threads, and what
// happens when a rank is late, wrong, gone or asks for an abort.
#include <sys/resource.h>

#include <functional>
#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/comm/transport_checks.h"
#include "worker/comm/local/local_group.h"

namespace octet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

LocalGroupOptions WithTimeout(absl::Duration timeout) {
  LocalGroupOptions options;
  options.communicator.timeout = timeout;
  options.host = "box";
  return options;
}

// Runs `body` as every rank of a group of `size` threads.
void RunRanks(int size, LocalGroupOptions options,
              const std::function<void(Communicator&)>& body) {
  auto group = NewLocalGroup(size, std::move(options));
  std::vector<std::thread> threads;
  for (auto& comm : group) {
    threads.emplace_back([&body, own = std::move(comm)] { body(*own); });
  }
  for (std::thread& thread : threads) thread.join();
}

class LocalTransport : public ::testing::TestWithParam<int> {
 protected:
  void Run(const std::function<void(Communicator&)>& body) {
    RunRanks(GetParam(), WithTimeout(absl::Seconds(60)), body);
  }
};

TEST_P(LocalTransport, AllToAllVProvenance) {
  Run([](Communicator& comm) { test::CheckAllToAllVProvenance(comm, 5); });
}
TEST_P(LocalTransport, AllGather) {
  Run([](Communicator& comm) { test::CheckAllGather(comm); });
}
TEST_P(LocalTransport, AllReduce) {
  Run([](Communicator& comm) { test::CheckAllReduce(comm); });
}
TEST_P(LocalTransport, Broadcast) {
  Run([](Communicator& comm) { test::CheckBroadcast(comm); });
}
TEST_P(LocalTransport, Barrier) {
  Run([](Communicator& comm) { test::CheckBarrier(comm); });
}

TEST_P(LocalTransport, RanksBehind) {
  Run([](Communicator& comm) { test::CheckRanksBehind(comm); });
}
TEST_P(LocalTransport, RandomSequence) {
  Run([](Communicator& comm) { test::CheckRandomSequence(comm, 11, 150); });
}
TEST_P(LocalTransport, Counters) {
  Run([](Communicator& comm) { test::CheckCounters(comm); });
}

INSTANTIATE_TEST_SUITE_P(GroupSizes, LocalTransport,
                         ::testing::Values(1, 2, 3, 4, 7, 8, 12));

TEST(LocalCommunicatorTest, LargeParts) {
  RunRanks(3, WithTimeout(absl::Seconds(60)),
           [](Communicator& comm) { test::CheckLargeParts(comm, 16 << 20); });
}

TEST(LocalCommunicatorTest, KnowsItsPlace) {
  auto group = NewLocalGroup(3, WithTimeout(absl::Seconds(1)));
  ASSERT_EQ(group.size(), 3u);
  EXPECT_EQ(group[2]->rank(), 2);
  EXPECT_EQ(group[2]->size(), 3);
  EXPECT_EQ(group[2]->host(0), "box");
  EXPECT_EQ(group[2]->transport(), "local");
}

TEST(LocalCommunicatorTest, DeadlineNamesWhoWaitedForWhomWhere) {
  std::latch given_up(2);
  RunRanks(4, WithTimeout(absl::Seconds(30)), [&](Communicator& comm) {
    if (comm.rank() == 1 || comm.rank() == 3) {
      given_up.wait();
      absl::Status late = comm.Barrier({.operation = "combine"});
      EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded) << late;
      EXPECT_THAT(std::string(late.message()), HasSubstr("for ranks 1, 3"));
      return;
    }
    absl::Status status = comm.Barrier({.operation = "combine",
                                        .layer = 5,
                                        .step_id = 99,
                                        .timeout = absl::Milliseconds(100)});
    given_up.count_down();
    ASSERT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
    const auto failure = FailureOf(status);
    ASSERT_TRUE(failure.has_value());
    EXPECT_EQ(failure->rank, comm.rank());
    EXPECT_EQ(failure->host, "box");
    EXPECT_EQ(failure->operation, "combine");
    EXPECT_EQ(failure->layer, 5);
    EXPECT_EQ(failure->step_id, 99);
    EXPECT_EQ(failure->sequence_number, 0);
    EXPECT_GT(failure->waited, absl::ZeroDuration());
    EXPECT_THAT(failure->missing_ranks, ElementsAre(1, 3));
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("combine of layer 5 in step 99 (collective 0)"));
    // Poisoned: the same error, at once.
    EXPECT_EQ(comm.Barrier({.operation = "later"}), status);
  });
}

TEST(LocalCommunicatorTest, DifferentOperationsAreNamedOnEveryRank) {
  RunRanks(3, WithTimeout(absl::Seconds(30)), [](Communicator& comm) {
    ASSERT_TRUE(comm.Barrier({.operation = "start"}).ok());
    int64_t value = 1;
    absl::Status status =
        comm.rank() == 2
            ? comm.AllReduceI64(absl::MakeSpan(&value, 1), ReduceOp::kSum,
                                {.operation = "count"})
            : comm.Broadcast(&value, 8, 0, {.operation = "plan"});
    ASSERT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("plan (Broadcast from rank 0, 8 bytes)"));
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("count (AllReduceI64 sum, 8 bytes)"));
  });
}

TEST(LocalCommunicatorTest, DifferentLayersAreAMismatch) {
  RunRanks(2, WithTimeout(absl::Seconds(30)), [](Communicator& comm) {
    absl::Status status =
        comm.Barrier({.operation = "dispatch", .layer = comm.rank()});
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("layer 1"));
  });
}

TEST(LocalCommunicatorTest, UnequalPartSizesAreNamedOnEveryRank) {
  RunRanks(3, WithTimeout(absl::Seconds(30)), [](Communicator& comm) {
    std::vector<int64_t> offsets = {0, 100, 200};
    std::vector<int64_t> sent = {8, 8, 8};
    std::vector<int64_t> expected = {8, 8, 8};
    if (comm.rank() == 1) sent[2] = 12;
    std::vector<char> buffer(300);
    std::vector<char> out(300);
    absl::Status status = comm.AllToAllV(
        {buffer.data(), offsets, sent, out.data(), offsets, expected},
        {.operation = "dispatch"});
    ASSERT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("rank 1 sends 12 bytes to rank 2, which expects 8"));
  });
}

TEST(LocalCommunicatorTest, BadArgumentEndsTheGroupInsteadOfAWait) {
  RunRanks(3, WithTimeout(absl::Seconds(30)), [](Communicator& comm) {
    char byte = 0;
    const int root = comm.rank() == 0 ? 3 : 1;
    absl::Status status = comm.Broadcast(&byte, 1, root, {.operation = "plan"});
    EXPECT_EQ(status.code(), comm.rank() == 0
                                 ? absl::StatusCode::kInvalidArgument
                                 : absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("root is rank 3, expected 0 to 2"));
  });
}

TEST(LocalCommunicatorTest, AbortWakesAnInfiniteWait) {
  RunRanks(4, WithTimeout(absl::Seconds(30)), [](Communicator& comm) {
    if (comm.rank() == 2) {
      absl::SleepFor(absl::Milliseconds(50));
      comm.Abort(absl::InternalError("expert 7 is on fire"));
    } else {
      char byte = 0;
      absl::Status status = comm.Broadcast(
          &byte, 1, 2,
          {.operation = "next plan", .timeout = absl::InfiniteDuration()});
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("is on fire"));
      EXPECT_THAT(FailureOf(status)->missing_ranks, ElementsAre(2));
    }
    absl::Status later = comm.Barrier({.operation = "later"});
    EXPECT_EQ(later.code(), absl::StatusCode::kUnavailable);
  });
}

TEST(LocalCommunicatorTest, AbortFromAThirdThread) {
  auto group = NewLocalGroup(2, WithTimeout(absl::InfiniteDuration()));
  std::thread waiting([&] {
    EXPECT_EQ(group[0]->Barrier({.operation = "wait"}).code(),
              absl::StatusCode::kUnavailable);
  });
  std::thread aborting([&] {
    absl::SleepFor(absl::Milliseconds(20));
    group[0]->Abort(absl::CancelledError("stop"));
  });
  waiting.join();
  aborting.join();
}

TEST(LocalCommunicatorTest, ARankThatGoesEndsAnInfiniteWait) {
  RunRanks(3, WithTimeout(absl::InfiniteDuration()), [](Communicator& comm) {
    ASSERT_TRUE(comm.Barrier({.operation = "start"}).ok());
    if (comm.rank() == 1) {
      absl::SleepFor(absl::Milliseconds(30));
      return;
    }
    absl::Status status = comm.Barrier({.operation = "next"});
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("rank 1 has left the group"));
  });
}

// An AllToAllV whose peer fails must not return while a third rank still reads
// the send buffer; AddressSanitizer and ThreadSanitizer see it if it does.
TEST(LocalCommunicatorTest, BuffersMayGoAfterAFailure) {
  for (int round = 0; round < 50; ++round) {
    RunRanks(4, WithTimeout(absl::Seconds(30)), [](Communicator& comm) {
      const int64_t part = 200000;
      std::vector<int64_t> bytes(4, part);
      std::vector<int64_t> offsets = {0, part, 2 * part, 3 * part};
      auto send = std::make_unique<std::vector<char>>(4 * part, 'x');
      std::vector<char> recv(4 * part);
      if (comm.rank() == 3) bytes[0] = part - 1;
      absl::Status status = comm.AllToAllV(
          {send->data(), offsets, bytes, recv.data(), offsets, bytes},
          {.operation = "dispatch"});
      EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
      std::fill(send->begin(), send->end(), 'y');
      send.reset();
    });
  }
}

TEST(LocalCommunicatorTest, AnIdleRankSleeps) {
  RunRanks(12, WithTimeout(absl::InfiniteDuration()), [](Communicator& comm) {
    char byte = 0;
    if (comm.rank() == 0) absl::SleepFor(absl::Seconds(1));
    rusage before;
    getrusage(RUSAGE_THREAD, &before);
    ASSERT_TRUE(comm.Broadcast(&byte, 1, 0, {.operation = "next plan"}).ok());
    rusage after;
    getrusage(RUSAGE_THREAD, &after);
    const absl::Duration used = absl::DurationFromTimeval(after.ru_utime) -
                                absl::DurationFromTimeval(before.ru_utime) +
                                absl::DurationFromTimeval(after.ru_stime) -
                                absl::DurationFromTimeval(before.ru_stime);
    EXPECT_LT(used, absl::Milliseconds(10)) << "of a second's wait";
  });
}

TEST(CollectiveFailureTest, SurvivesTheStatus) {
  CollectiveFailure failure;
  failure.rank = 2;
  failure.host = "a\xff";  // not UTF-8
  failure.operation = "dispatch";
  failure.layer = 3;
  failure.step_id = 17;
  failure.sequence_number = 412;
  failure.waited = absl::Seconds(5);
  failure.missing_ranks = {1, 3};
  failure.reason = "no answer within 5s";
  const absl::Status status =
      failure.ToStatus(absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("dispatch of layer 3 in step 17 (collective 412) "
                        "waited 5s for ranks 1, 3: no answer within 5s"));
  const auto back = FailureOf(status);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->rank, 2);
  EXPECT_EQ(back->operation, "dispatch");
  EXPECT_EQ(back->layer, 3);
  EXPECT_EQ(back->step_id, 17);
  EXPECT_EQ(back->sequence_number, 412);
  EXPECT_EQ(back->waited, absl::Seconds(5));
  EXPECT_THAT(back->missing_ranks, ElementsAre(1, 3));
  EXPECT_EQ(back->reason, "no answer within 5s");
  EXPECT_FALSE(FailureOf(absl::InternalError("other")).has_value());
  EXPECT_FALSE(FailureOf(absl::OkStatus()).has_value());
}

}  // namespace
}  // namespace octet
