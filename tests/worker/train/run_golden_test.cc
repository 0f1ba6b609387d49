// Fifty steps of a whole run against torch's and PEFT's, at every number of
// ranks the same bits.
#include <cmath>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "tests/support/ranks.h"
#include "tests/worker/train/run_rank.h"
#include "worker/train/run.h"

namespace octet {
namespace {

constexpr const char* kCases[] = {"e8k2_old", "e4k3_tied_window_old",
                                  "e16k3_old_sharded"};

struct Curve {
  std::vector<double> losses, norms;
};

void ExpectSame(const Curve& found, const Curve& expected,
                const std::string& what) {
  EXPECT_EQ(found.losses, expected.losses) << what;
  EXPECT_EQ(found.norms, expected.norms) << what;
}

// `steps` optimizer steps on the golden's four slots, `calls` calls each.
Curve Train(const std::string& name, const v1::CreateRunRequest& request,
            int num_ranks, int steps, const std::vector<int>& calls) {
  Curve curve;
  std::mutex mutex;
  const auto results = test::RunRanks(
      num_ranks, [&](Communicator& communicator) -> absl::Status {
        test::RunRankOptions options;
        options.checkpoint = test::GoldenPath(name);
        OCTET_ASSIGN_OR_RETURN(const auto rank,
                               test::RunRank::New(communicator, options));
        OCTET_ASSIGN_OR_RETURN(
            const auto run,
            TrainingRun::Create(rank->model(), rank->environment, request, 0));
        const v1::ForwardBackwardRequest all = test::GoldenSlots(name);
        Curve own;
        for (int step = 0; step < steps; ++step) {
          double loss = 0;
          int first = 0;
          for (int slots : calls) {
            v1::ForwardBackwardRequest part;
            for (int i = first; i < first + slots; ++i) {
              *part.add_slots() = all.slots(i);
            }
            first += slots;
            part.set_loss_scale(static_cast<float>(slots) / 4);
            OCTET_ASSIGN_OR_RETURN(const v1::ForwardResponse response,
                                   run->ForwardBackward(part, step));
            loss += response.loss() * slots / 4;
          }
          OCTET_ASSIGN_OR_RETURN(const v1::OptimStepResponse response,
                                 run->OptimStep(test::GoldenStep(), step));
          EXPECT_FALSE(response.skipped());
          own.losses.push_back(loss);
          own.norms.push_back(response.grad_norm());
        }
        const std::lock_guard<std::mutex> lock(mutex);
        if (!curve.losses.empty()) {
          ExpectSame(own, curve, "ranks of a group");
        }
        curve = own;
        return absl::OkStatus();
      });
  for (const absl::Status& status : results) EXPECT_TRUE(status.ok()) << status;
  return curve;
}

void ExpectFollows(const std::string& name, const std::string& method,
                   const Curve& found) {
  const std::vector<float> losses = test::GoldenFloats(name, method + "/curve");
  const std::vector<float> norms =
      test::GoldenFloats(name, method + "/grad_norms");
  ASSERT_EQ(found.losses.size(), losses.size());
  double worst_loss = 0, worst_norm = 0;
  for (size_t i = 0; i < losses.size(); ++i) {
    worst_loss = std::max(worst_loss, std::abs(found.losses[i] - losses[i]));
    worst_norm =
        std::max(worst_norm, std::abs(found.norms[i] / norms[i] - 1.0));
  }
  // Both in f32; a difference of rounding grows with the steps.
  EXPECT_LT(worst_loss, 1e-3) << name << " " << method;
  EXPECT_LT(worst_norm, 1e-2) << name << " " << method;
  testing::Test::RecordProperty(name + "_" + method,
                                std::to_string(worst_loss));
}

TEST(RunGoldenTest, FiftyFullStepsFollowTorch) {
  for (const std::string name : kCases) {
    ExpectFollows(name, "full", Train(name, test::GoldenFullRun(), 2, 50, {4}));
  }
}

TEST(RunGoldenTest, FiftyAdapterStepsFollowPeft) {
  for (const std::string name : kCases) {
    ExpectFollows(name, "lora",
                  Train(name, test::GoldenLoraRun(name), 2, 50, {4}));
  }
}

TEST(RunGoldenTest, SameCurveAtEveryWidthAndSplit) {
  const std::string name = "e8k2_old";
  v1::CreateRunRequest dropping = test::GoldenLoraRun(name);
  dropping.mutable_lora()->set_dropout(0.3f);
  for (const v1::CreateRunRequest& request :
       {test::GoldenFullRun(), dropping}) {
    const Curve expected = Train(name, request, 1, 3, {4});
    for (const int num_ranks : {1, 2, 3, 4, 7, 8}) {
      ExpectSame(Train(name, request, num_ranks, 3, {4}), expected,
                 std::to_string(num_ranks) + " ranks");
    }
    // Powers of two as loss scales are exact.
    const Curve split = Train(name, request, 1, 3, {2, 2});
    EXPECT_EQ(split.norms, expected.norms);
    for (const int num_ranks : {2, 3}) {
      ExpectSame(Train(name, request, num_ranks, 3, {2, 2}), split,
                 "two calls");
      EXPECT_EQ(Train(name, request, num_ranks, 3, {1, 2, 1}).norms,
                expected.norms);
    }
  }
}

}  // namespace
}  // namespace octet
