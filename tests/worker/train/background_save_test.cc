// Saving while the run goes on: the state is that of the step at which it was
// asked for, one save is under way at a time, an error is told once, and what
// is interrupted is not there. A rate of one byte per second keeps a save under
// way until somebody waits for it.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/data.h"
#include "tests/support/ranks.h"
#include "tests/worker/train/run_rank.h"
#include "worker/train/run.h"

namespace octet {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr char kGolden[] = "e8k2_old";

// A rank and its run.
struct Member {
  test::RunRank& rank;
  TrainingRun& run;
  Communicator& communicator;
  bool root() const { return communicator.rank() == 0; }
};
using Body = std::function<absl::Status(Member&)>;

void OnRanks(int num_ranks, v1::CreateRunRequest request,
             int64_t bytes_per_second, const Body& body) {
  request.set_background_saves(true);
  const auto results = test::RunRanks(
      num_ranks, [&](Communicator& communicator) -> absl::Status {
        test::RunRankOptions options;
        options.checkpoint = test::GoldenPath(kGolden);
        OCTET_ASSIGN_OR_RETURN(const auto rank,
                               test::RunRank::New(communicator, options));
        rank->environment.save_bytes_per_second = bytes_per_second;
        OCTET_ASSIGN_OR_RETURN(
            const auto run,
            TrainingRun::Create(rank->model(), rank->environment, request, 0));
        Member member{*rank, *run, communicator};
        return body(member);
      });
  for (const absl::Status& status : results) EXPECT_TRUE(status.ok()) << status;
}

// Losses of `count` steps.
absl::StatusOr<std::vector<double>> Steps(TrainingRun& run, int count) {
  std::vector<double> losses;
  for (int i = 0; i < count; ++i) {
    OCTET_ASSIGN_OR_RETURN(const v1::ForwardResponse response,
                           run.ForwardBackward(test::GoldenSlots(kGolden), 1));
    OCTET_RETURN_IF_ERROR(run.OptimStep(test::GoldenStep(), 1).status());
    losses.push_back(response.loss());
  }
  return losses;
}

absl::StatusOr<v1::SaveStateResponse> Save(TrainingRun& run,
                                           const std::string& path,
                                           bool background = true) {
  v1::SaveStateRequest request;
  request.set_path(path);
  request.set_client_state("row 17");
  request.set_background(background);
  return run.SaveState(request, 1);
}

absl::Status Load(TrainingRun& run, const std::string& path) {
  v1::LoadStateRequest request;
  request.set_path(path);
  OCTET_ASSIGN_OR_RETURN(const auto loaded, run.LoadState(request, 1));
  EXPECT_EQ(loaded.client_state(), "row 17");
  return absl::OkStatus();
}

std::map<std::string, std::string> FilesOf(const std::string& dir) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(dir)) {
    std::ifstream stream(entry.path(), std::ios::binary);
    files[entry.path().filename().string()].assign(
        std::istreambuf_iterator<char>(stream), {});
  }
  return files;
}

TEST(BackgroundSaveTest, HasTheBitsOfASaveThatWaitsWhateverRunsMeanwhile) {
  for (const v1::CreateRunRequest& request :
       {test::GoldenFullRun(), test::GoldenLoraRun(kGolden)}) {
    for (const int num_ranks : {1, 2, 4}) {
      const test::TempDir dir;
      const std::string waited = dir.path() + "/waited";
      const std::string background = dir.path() + "/background";
      std::vector<double> expected;
      OnRanks(num_ranks, request, 1, [&](Member& member) -> absl::Status {
        TrainingRun& run = member.run;
        OCTET_RETURN_IF_ERROR(Steps(run, 2).status());
        OCTET_ASSIGN_OR_RETURN(const auto first, Save(run, waited, false));
        EXPECT_FALSE(first.writing());
        OCTET_ASSIGN_OR_RETURN(const auto second, Save(run, background));
        EXPECT_TRUE(second.writing());
        EXPECT_EQ(second.num_bytes(), first.num_bytes());
        OCTET_ASSIGN_OR_RETURN(const std::vector<double> losses, Steps(run, 3));
        if (member.root()) expected = losses;
        OCTET_RETURN_IF_ERROR(run.CheckSave(1));
        EXPECT_EQ(run.last_save()->stage(), v1::SAVE_STAGE_WRITING);
        EXPECT_EQ(run.last_save()->optimizer_steps(), 2);
        EXPECT_FALSE(fs::exists(background));
        OCTET_RETURN_IF_ERROR(run.SettleSave(1));
        EXPECT_EQ(run.last_save()->stage(), v1::SAVE_STAGE_COMPLETE);
        EXPECT_EQ(run.last_save()->num_bytes(), first.num_bytes());
        return absl::OkStatus();
      });
      EXPECT_EQ(FilesOf(background).size(), num_ranks + 1u);
      EXPECT_TRUE(FilesOf(background) == FilesOf(waited)) << num_ranks;
      EXPECT_FALSE(fs::exists(background + ".partial"));
      // Another number of ranks goes on from it as the run did.
      OnRanks(3, request, 0, [&](Member& member) -> absl::Status {
        OCTET_RETURN_IF_ERROR(Load(member.run, background));
        OCTET_ASSIGN_OR_RETURN(const auto losses, Steps(member.run, 3));
        EXPECT_EQ(losses, expected);
        return absl::OkStatus();
      });
    }
  }
}

TEST(BackgroundSaveTest, IsCompletedByLooks) {
  const test::TempDir dir;
  OnRanks(4, test::GoldenFullRun(), 0, [&](Member& member) -> absl::Status {
    for (int i = 0; i < 3; ++i) {  // the copy's memory is used again
      const std::string path = absl::StrCat(dir.path(), "/", i);
      OCTET_RETURN_IF_ERROR(Steps(member.run, 1).status());
      OCTET_RETURN_IF_ERROR(Save(member.run, path).status());
      while (member.run.last_save()->stage() == v1::SAVE_STAGE_WRITING) {
        OCTET_RETURN_IF_ERROR(Steps(member.run, 1).status());
        OCTET_RETURN_IF_ERROR(member.run.CheckSave(1));
      }
      EXPECT_EQ(member.run.last_save()->stage(), v1::SAVE_STAGE_COMPLETE);
      EXPECT_TRUE(fs::exists(path + "/manifest.json"));
      OCTET_RETURN_IF_ERROR(Load(member.run, path));
    }
    return absl::OkStatus();
  });
}

TEST(BackgroundSaveTest, OneIsUnderWayAtATime) {
  const test::TempDir dir;
  const std::string a = dir.path() + "/a/state", b = dir.path() + "/b";
  const auto is_writing = [](Member& member, const std::string& path) {
    EXPECT_EQ(member.run.last_save()->path(), path);
    return member.run.last_save()->stage() == v1::SAVE_STAGE_WRITING;
  };
  OnRanks(2, test::GoldenFullRun(), 1, [&](Member& member) -> absl::Status {
    TrainingRun& run = member.run;
    OCTET_RETURN_IF_ERROR(Save(run, a).status());
    EXPECT_TRUE(is_writing(member, a));
    OCTET_RETURN_IF_ERROR(Save(run, b).status());
    EXPECT_TRUE(fs::exists(a));
    EXPECT_TRUE(is_writing(member, b));
    // An export to elsewhere does not wait, one into the same place does.
    v1::ExportWeightsRequest request;
    request.set_path(dir.path() + "/exported");
    OCTET_RETURN_IF_ERROR(run.ExportWeights(request, 1).status());
    EXPECT_TRUE(is_writing(member, b));
    for (const std::string& path :
         {b + "/", b + "/../b/inner", dir.path() + "/c/.."}) {
      request.set_path(path);
      EXPECT_EQ(run.ExportWeights(request, 1).status().code(),
                path.find("inner") == std::string::npos
                    ? absl::StatusCode::kAlreadyExists
                    : absl::StatusCode::kOk)
          << path;
      EXPECT_FALSE(is_writing(member, b));
      OCTET_RETURN_IF_ERROR(member.communicator.Barrier({.operation = "test"}));
      if (member.root()) fs::remove_all(b);
      OCTET_RETURN_IF_ERROR(Save(run, b).status());
    }
    // Loading waits, for this very state too.
    OCTET_RETURN_IF_ERROR(Steps(run, 1).status());
    OCTET_RETURN_IF_ERROR(Load(run, b));
    EXPECT_FALSE(is_writing(member, b));
    // A save that waits comes after the one in the background.
    OCTET_RETURN_IF_ERROR(Save(run, dir.path() + "/d").status());
    OCTET_RETURN_IF_ERROR(Save(run, dir.path() + "/e", false).status());
    EXPECT_EQ(run.last_save()->path(), dir.path() + "/e");
    EXPECT_EQ(run.last_save()->stage(), v1::SAVE_STAGE_COMPLETE);
    EXPECT_TRUE(fs::exists(dir.path() + "/d"));
    return absl::OkStatus();
  });
}

TEST(BackgroundSaveTest, AnErrorIsToldOnceAndTheRunGoesOn) {
  // Makes absl's table of the system's errors before threads ask for it:
  // ThreadSanitizer does not see the lock that guards it.
  ASSERT_FALSE(absl::ErrnoToStatus(ENOENT, "").ok());
  const test::TempDir dir;
  const std::string path = dir.path() + "/state";
  OnRanks(3, test::GoldenFullRun(), 1, [&](Member& member) -> absl::Status {
    TrainingRun& run = member.run;
    for (const bool told_by_load : {false, true}) {
      OCTET_RETURN_IF_ERROR(Steps(run, 1).status());
      OCTET_RETURN_IF_ERROR(Save(run, path).status());
      // The disk under it goes, once all have begun to write.
      if (member.root()) {
        while (FilesOf(path + ".partial").size() < 3) {
          absl::SleepFor(absl::Milliseconds(1));
        }
        fs::remove_all(path + ".partial");
      }
      OCTET_RETURN_IF_ERROR(member.communicator.Barrier({.operation = "test"}));
      v1::LoadStateRequest load;
      load.set_path(path);
      const absl::Status told = told_by_load ? run.LoadState(load, 1).status()
                                             : Save(run, path).status();
      EXPECT_THAT(
          std::string(told.message()),
          HasSubstr("the save in the background to " + path + " after step"));
      EXPECT_THAT(std::string(told.message()), HasSubstr(".partial"));
      EXPECT_EQ(run.last_save()->stage(), v1::SAVE_STAGE_FAILED);
      EXPECT_EQ(run.last_save()->error(), told.message());
      EXPECT_FALSE(fs::exists(path));
      // Rank 0 tidies up.
      EXPECT_FALSE(member.root() && fs::exists(path + ".partial"));
    }
    EXPECT_TRUE(run.SettleSave(1).ok());
    OCTET_RETURN_IF_ERROR(Save(run, path).status());
    OCTET_RETURN_IF_ERROR(run.SettleSave(1));
    EXPECT_EQ(run.last_save()->stage(), v1::SAVE_STAGE_COMPLETE);
    return Load(run, path);
  });
}

TEST(BackgroundSaveTest, RefusalsChangeNothing) {
  const test::TempDir dir;
  OnRanks(2, test::GoldenFullRun(), 1, [&](Member& member) -> absl::Status {
    TrainingRun& run = member.run;
    EXPECT_EQ(Save(run, "").status().code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_FALSE(run.last_save().has_value());
    OCTET_RETURN_IF_ERROR(
        run.ForwardBackward(test::GoldenSlots(kGolden), 1).status());
    const absl::Status pending = Save(run, dir.path() + "/a").status();
    EXPECT_EQ(pending.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(pending.message()), HasSubstr("pending"));
    OCTET_RETURN_IF_ERROR(run.ZeroGrad({}).status());
    OCTET_RETURN_IF_ERROR(Save(run, dir.path() + "/a").status());
    // The path of a save that is under way, which is waited for.
    EXPECT_EQ(Save(run, dir.path() + "/a").status().code(),
              absl::StatusCode::kAlreadyExists);
    EXPECT_EQ(run.last_save()->stage(), v1::SAVE_STAGE_COMPLETE);
    return absl::OkStatus();
  });
  OnRanks(2, test::GoldenFullRun(), 1, [&](Member& member) -> absl::Status {
    OCTET_ASSIGN_OR_RETURN(
        const auto run,
        TrainingRun::Create(member.rank.model(), member.rank.environment,
                            test::GoldenFullRun(), 1));
    const absl::Status status = Save(*run, dir.path() + "/b").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("background is true, expected false in a run that "
                          "was created without background_saves"));
    return absl::OkStatus();
  });
}

TEST(BackgroundSaveTest, ARunThatEndsMeanwhileLeavesNothing) {
  for (const int num_ranks : {1, 4}) {
    const test::TempDir dir;
    OnRanks(num_ranks, test::GoldenFullRun(), 1, [&](Member& member) {
      return Save(member.run, dir.path() + "/state").status();
    });
    EXPECT_FALSE(fs::exists(dir.path() + "/state"));
    // Of several ranks one may still write while rank 0 tidies up.
    EXPECT_TRUE(num_ranks > 1 || fs::is_empty(dir.path()));
  }
}

TEST(BackgroundSaveTest, ARankThatDiesEndsTheWait) {
  const test::TempDir dir;
  const auto results =
      test::RunRanks(3, [&](Communicator& communicator) -> absl::Status {
        test::RunRankOptions options;
        options.checkpoint = test::GoldenPath(kGolden);
        OCTET_ASSIGN_OR_RETURN(const auto rank,
                               test::RunRank::New(communicator, options));
        v1::CreateRunRequest request = test::GoldenFullRun();
        request.set_background_saves(true);
        rank->environment.save_bytes_per_second = 1;
        OCTET_ASSIGN_OR_RETURN(
            const auto run,
            TrainingRun::Create(rank->model(), rank->environment, request, 0));
        OCTET_RETURN_IF_ERROR(Save(*run, dir.path() + "/state").status());
        if (communicator.rank() == 1) return absl::AbortedError("rank 1 died");
        return run->SettleSave(1);
      });
  EXPECT_EQ(results[0].code(), absl::StatusCode::kUnavailable) << results[0];
  EXPECT_EQ(results[2].code(), absl::StatusCode::kUnavailable) << results[2];
  EXPECT_FALSE(fs::exists(dir.path() + "/state"));
}

TEST(BackgroundSaveKillTest, KilledAtAnyTimeLeavesNothingOrAll) {
  const test::TempDir dir;
  // Two saves; the first is complete before the second begins.
  const std::string first = dir.path() + "/first";
  const std::string second = dir.path() + "/second";
  int whole = 0, torn = 0;
  for (int trial = 0; trial < 20; ++trial) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      // Some 0.2 s for the state.
      OnRanks(2, test::GoldenFullRun(), 3 << 20, [&](Member& member) {
        OCTET_RETURN_IF_ERROR(Save(member.run, first).status());
        OCTET_RETURN_IF_ERROR(Save(member.run, second).status());
        while (member.run.last_save()->stage() == v1::SAVE_STAGE_WRITING) {
          OCTET_RETURN_IF_ERROR(Steps(member.run, 1).status());
          OCTET_RETURN_IF_ERROR(member.run.CheckSave(1));
        }
        return absl::OkStatus();
      });
      _exit(0);
    }
    absl::SleepFor(absl::Milliseconds(20 + 25 * trial));
    kill(child, SIGKILL);
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
    torn += fs::exists(second + ".partial");
    for (const std::string& path : {first, second}) {
      if (!fs::exists(path)) continue;
      ++whole;
      OnRanks(3, test::GoldenFullRun(), 0,
              [&](Member& member) { return Load(member.run, path); });
    }
    EXPECT_TRUE(fs::exists(first) || !fs::exists(second));
    // What a killed process left under way stays: it is in nobody's way.
    fs::remove_all(first);
    fs::remove_all(second);
  }
  std::printf("%d states were whole, %d kills hit the second's writing\n",
              whole, torn);
}

}  // namespace
}  // namespace octet
