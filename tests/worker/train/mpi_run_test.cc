// A run whose ranks are processes computes the bits of one rank alone.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "tests/support/ranks.h"
#include "tests/worker/comm/mpi_test_main.h"
#include "tests/worker/train/run_rank.h"
#include "worker/comm/mpi/mpi_environment.h"
#include "worker/train/run.h"

namespace octet {
namespace {

constexpr char kGolden[] = "e8k2_old";

// Losses and gradient norms of three steps.
absl::StatusOr<std::vector<double>> Train(Communicator& communicator,
                                          const v1::CreateRunRequest& request) {
  test::RunRankOptions options;
  options.checkpoint = test::GoldenPath(kGolden);
  OCTET_ASSIGN_OR_RETURN(const auto rank,
                         test::RunRank::New(communicator, options));
  OCTET_ASSIGN_OR_RETURN(
      const auto run,
      TrainingRun::Create(rank->model(), rank->environment, request, 0));
  std::vector<double> out;
  for (int step = 0; step < 3; ++step) {
    OCTET_ASSIGN_OR_RETURN(
        const v1::ForwardResponse response,
        run->ForwardBackward(test::GoldenSlots(kGolden), step));
    OCTET_ASSIGN_OR_RETURN(const v1::OptimStepResponse done,
                           run->OptimStep(test::GoldenStep(), step));
    out.push_back(response.loss());
    out.push_back(done.grad_norm());
  }
  return out;
}

TEST(MpiRunTest, ComputesTheBitsOfOneRank) {
  auto communicator = NewMpiCommunicator(
      test::Mpi(), {.timeout = absl::Seconds(60), .synchronize = {}});
  ASSERT_TRUE(communicator.ok()) << communicator.status();
  for (const v1::CreateRunRequest& request :
       {test::GoldenFullRun(), test::GoldenLoraRun(kGolden)}) {
    std::vector<double> expected;
    const auto alone = test::RunRanks(1, [&](Communicator& one) {
      auto found = Train(one, request);
      if (found.ok()) expected = *std::move(found);
      return found.status();
    });
    ASSERT_TRUE(alone[0].ok()) << alone[0];
    const auto found = Train(**communicator, request);
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(*found, expected);
  }
}

}  // namespace
}  // namespace octet
