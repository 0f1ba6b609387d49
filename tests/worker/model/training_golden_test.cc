// Losses and gradients of the training pass against torch's, on the golden
// checkpoints: every weight, and every adapter.
#include <mutex>
#include <string>
#include <utility>

#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/support/ranks.h"
#include "tests/worker/model/golden_gradients.h"

namespace octet {
namespace {

class TrainingGoldenTest : public ::testing::TestWithParam<std::string> {
 protected:
  // At each number of ranks, against the golden's `prefix`.
  void Check(const std::string& prefix) {
    const test::GoldenPass pass = test::MakeGoldenPass(golden_, prefix);
    for (const int num_ranks : {1, 3}) {
      const test::GoldenRun run = Run(pass, num_ranks);
      EXPECT_NEAR(run.result.loss, golden_.Number(prefix + "loss"), 1e-5);
      EXPECT_NEAR(run.result.aux_loss, golden_.Number(prefix + "aux_loss"),
                  1e-5);
      test::CompareGradients(golden_, pass, run.gradients);
    }
  }

  test::GoldenRun Run(const test::GoldenPass& pass, int num_ranks) {
    test::GoldenRun all;
    std::mutex mutex;
    const auto statuses = test::RunRanks(num_ranks, [&](Communicator& group) {
      OCTET_ASSIGN_OR_RETURN(const auto backend, NewCpuBackend({}));
      OCTET_ASSIGN_OR_RETURN(
          test::GoldenRun own,
          test::RunGoldenPass(golden_, pass, group, *backend));
      const std::lock_guard<std::mutex> lock(mutex);
      all.gradients.insert(own.gradients.begin(), own.gradients.end());
      if (group.rank() == 0) all.result = std::move(own.result);
      return absl::OkStatus();
    });
    for (const absl::Status& status : statuses) {
      EXPECT_TRUE(status.ok()) << status;
    }
    return all;
  }

  const test::GoldenTraining golden_{GetParam()};
};

TEST_P(TrainingGoldenTest, EveryGradientOfSlotsWithAMeanOfMeans) {
  Check("full/");
}

TEST_P(TrainingGoldenTest, BatchStatisticsAndTokenMean) { Check("batch/"); }

// A batch has no padding, so its router losses are those that transformers has
// of a padded one with an attention mask; with padding in the rows, those that
// it has without.
TEST_P(TrainingGoldenTest, RowsWithoutPaddingAreRowsWithMaskedPadding) {
  Check("masked/");
  Check("counted/");
}

TEST_P(TrainingGoldenTest, AdaptersOnEveryModule) { Check("lora/"); }

INSTANTIATE_TEST_SUITE_P(Checkpoints, TrainingGoldenTest,
                         ::testing::Values("e8k2_old", "e4k3_tied_window_old",
                                           "e16k3_old_sharded"));

}  // namespace
}  // namespace octet
