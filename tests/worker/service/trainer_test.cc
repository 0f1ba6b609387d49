// What the calls of a rank say of a save in the background, and who waits for
// it.
#include "worker/service/trainer.h"

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "base/status_macros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/data.h"
#include "tests/support/ranks.h"
#include "tests/worker/train/run_rank.h"

namespace octet {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr char kGolden[] = "e8k2_old";

// Begins a run and a save to `path` that nobody has waited for, on two ranks.
void WhileSaving(
    const std::string& path,
    const std::function<absl::Status(Trainer&, Communicator&)>& body) {
  const auto results =
      test::RunRanks(2, [&](Communicator& communicator) -> absl::Status {
        test::RunRankOptions options;
        options.checkpoint = test::GoldenPath(kGolden);
        OCTET_ASSIGN_OR_RETURN(const auto rank,
                               test::RunRank::New(communicator, options));
        rank->environment.save_bytes_per_second = 1;
        Trainer trainer(rank->model(), [&] { return rank->environment; });
        EXPECT_TRUE(trainer.Finish(0).ok());  // there is no run
        v1::TrainPlan call;
        *call.mutable_create_run() = test::GoldenFullRun();
        call.mutable_create_run()->set_background_saves(true);
        OCTET_ASSIGN_OR_RETURN(v1::TrainResult result, trainer.Run(1, call));
        EXPECT_FALSE(result.has_save());
        call.mutable_save_state()->set_path(path);
        call.mutable_save_state()->set_background(true);
        OCTET_ASSIGN_OR_RETURN(result, trainer.Run(2, call));
        EXPECT_TRUE(result.save_state().writing());
        EXPECT_EQ(result.save().stage(), v1::SAVE_STAGE_WRITING);
        EXPECT_EQ(result.save().path(), path);
        return body(trainer, communicator);
      });
  for (const absl::Status& status : results) EXPECT_TRUE(status.ok()) << status;
}

TEST(TrainerTest, EveryAnswerTellsOfTheSave) {
  const test::TempDir dir;
  const std::string path = dir.path() + "/state";
  WhileSaving(path, [&](Trainer& trainer, Communicator&) -> absl::Status {
    v1::TrainPlan call;
    call.mutable_check_save();
    OCTET_ASSIGN_OR_RETURN(v1::TrainResult result, trainer.Run(3, call));
    EXPECT_EQ(result.save().stage(), v1::SAVE_STAGE_WRITING);
    call.mutable_zero_grad();
    OCTET_ASSIGN_OR_RETURN(result, trainer.Run(4, call));
    EXPECT_EQ(result.save().stage(), v1::SAVE_STAGE_WRITING);
    call.mutable_optim_step()->mutable_adamw()->set_learning_rate(-1);
    OCTET_ASSIGN_OR_RETURN(result, trainer.Run(5, call));
    EXPECT_NE(result.code(), 0);
    EXPECT_EQ(result.save().stage(), v1::SAVE_STAGE_WRITING);
    EXPECT_FALSE(fs::exists(path));
    // The end waits.
    call.mutable_end_run();
    OCTET_ASSIGN_OR_RETURN(result, trainer.Run(6, call));
    EXPECT_EQ(result.code(), 0);
    EXPECT_EQ(result.save().stage(), v1::SAVE_STAGE_COMPLETE);
    EXPECT_TRUE(fs::exists(path + "/manifest.json"));
    return absl::OkStatus();
  });
}

TEST(TrainerTest, TheEndOfTheGroupWaits) {
  const test::TempDir dir;
  const std::string path = dir.path() + "/state";
  WhileSaving(path, [&](Trainer& trainer, Communicator&) -> absl::Status {
    OCTET_RETURN_IF_ERROR(trainer.Finish(3));
    EXPECT_TRUE(fs::exists(path + "/manifest.json"));
    return absl::OkStatus();
  });
}

TEST(TrainerTest, AnEndIsRefusedOnceWithTheErrorOfTheSave) {
  const test::TempDir dir;
  const std::string path = dir.path() + "/state";
  WhileSaving(
      path, [&](Trainer& trainer, Communicator& communicator) -> absl::Status {
        if (communicator.rank() == 0) {
          // Somebody makes the directory meanwhile, so it cannot be renamed.
          fs::create_directories(path + "/in_the_way");
        }
        OCTET_RETURN_IF_ERROR(communicator.Barrier({.operation = "test"}));
        v1::TrainPlan call;
        call.mutable_end_run();
        OCTET_ASSIGN_OR_RETURN(v1::TrainResult result, trainer.Run(3, call));
        EXPECT_NE(result.code(), 0);
        EXPECT_THAT(result.message(), HasSubstr("cannot rename the finished"));
        EXPECT_EQ(result.save().stage(), v1::SAVE_STAGE_FAILED);
        EXPECT_EQ(result.save().error(), result.message());
        OCTET_ASSIGN_OR_RETURN(result, trainer.Run(4, call));
        EXPECT_EQ(result.code(), 0);
        EXPECT_FALSE(communicator.rank() == 0 && fs::exists(path + ".partial"));
        return absl::OkStatus();
      });
}

}  // namespace
}  // namespace octet
