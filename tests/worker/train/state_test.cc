// A run's state goes from any number of ranks to any other, and a state that is
// torn or damaged changes nothing.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
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
#include "tests/worker/train/trainer_rank.h"
#include "worker/train/state_files.h"

namespace octet {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Values = std::map<std::string, std::vector<float>>;
using Body = std::function<absl::Status(test::TrainerRank&)>;

void RunGroup(int num_ranks, const v1::CreateRunRequest& request,
              const Body& body) {
  const auto results = test::RunRanks(
      num_ranks, [&](Communicator& communicator) -> absl::Status {
        OCTET_ASSIGN_OR_RETURN(
            const std::unique_ptr<test::TrainerRank> rank,
            test::TrainerRank::New(communicator, test::TrainerConfig(),
                                   DType::kF32, request));
        return body(*rank);
      });
  for (const absl::Status& status : results) EXPECT_TRUE(status.ok()) << status;
}

absl::Status Step(test::TrainerRank& rank, uint64_t seed) {
  OCTET_RETURN_IF_ERROR(rank.Accumulate(5, seed));
  return rank.trainer().Step(test::TestAdamW(), 1).status();
}

RunProgress Progress() { return {40, 5, 0.5, "row 17"}; }

TEST(StateTest, GoesFromAnyWidthToAnyOther) {
  for (const v1::CreateRunRequest& request :
       {test::FullRequest(), test::LoraRequest()}) {
    Values expected;
    RunGroup(1, request, [&](test::TrainerRank& rank) -> absl::Status {
      for (int i = 0; i < 3; ++i) OCTET_RETURN_IF_ERROR(Step(rank, i));
      OCTET_ASSIGN_OR_RETURN(expected, rank.Values());
      return absl::OkStatus();
    });
    const test::TempDir dir;
    for (const int from : {1, 3, 8}) {
      const std::string path = absl::StrCat(dir.path(), "/new/state-", from);
      RunGroup(from, request, [&](test::TrainerRank& rank) -> absl::Status {
        for (int i = 0; i < 2; ++i) OCTET_RETURN_IF_ERROR(Step(rank, i));
        OCTET_ASSIGN_OR_RETURN(
            const int64_t bytes,
            SaveTrainingState(rank.trainer(), path, Progress(), 1));
        EXPECT_EQ(bytes, 12 * rank.trainer().parameters().num_trainable());
        return absl::OkStatus();
      });
      EXPECT_FALSE(fs::exists(path + ".partial"));
      for (const int to : {1, 2, 7}) {
        RunGroup(to, request, [&](test::TrainerRank& rank) -> absl::Status {
          OCTET_RETURN_IF_ERROR(Step(rank, 99));  // to be forgotten
          OCTET_ASSIGN_OR_RETURN(
              const RunProgress progress,
              LoadTrainingState(rank.trainer(), path, {0, 5, 0.5, ""}, 1));
          EXPECT_EQ(progress.run_slots, 40);
          EXPECT_EQ(progress.client_state, "row 17");
          EXPECT_EQ(rank.trainer().optimizer().num_steps(), 2);
          OCTET_RETURN_IF_ERROR(Step(rank, 2));
          OCTET_ASSIGN_OR_RETURN(const Values values, rank.Values());
          EXPECT_TRUE(values == expected) << from << " to " << to;
          return absl::OkStatus();
        });
      }
    }
  }
}

// Every rank refuses with this sentence, nothing changes and the group works.
void ExpectRefused(const std::string& path, const RunProgress& current,
                   absl::StatusCode code, const std::string& sentence,
                   const v1::CreateRunRequest& request = test::FullRequest()) {
  RunGroup(3, request, [&](test::TrainerRank& rank) -> absl::Status {
    OCTET_ASSIGN_OR_RETURN(const Values before, rank.Values());
    const absl::Status status =
        LoadTrainingState(rank.trainer(), path, current, 1).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(sentence));
    EXPECT_EQ(rank.trainer().optimizer().num_steps(), 0);
    OCTET_ASSIGN_OR_RETURN(const Values after, rank.Values());
    EXPECT_TRUE(after == before);
    return absl::OkStatus();
  });
}

class SavedState : public testing::Test {
 protected:
  void SetUp() override {
    path_ = dir_.path() + "/state";
    RunGroup(2, test::FullRequest(), [&](test::TrainerRank& rank) {
      return SaveTrainingState(rank.trainer(), path_, Progress(), 1).status();
    });
  }

  const test::TempDir dir_;
  std::string path_;
};

TEST_F(SavedState, OfAnotherRunIsRefused) {
  ExpectRefused(path_, {0, 6, 0.5, ""}, absl::StatusCode::kInvalidArgument,
                "manifest.json: seed is 5, expected 6 as in this run");
  ExpectRefused(path_, {0, 5, 2, ""}, absl::StatusCode::kInvalidArgument,
                "lora_scale is 0.5, expected 2 as in this run");
  ExpectRefused(path_, {0, 5, 0, ""}, absl::StatusCode::kInvalidArgument,
                "method is LoRA, expected FULL or FREEZE as in this run");
  ExpectRefused(path_, Progress(), absl::StatusCode::kInvalidArgument,
                "parameter 2 is model.layers.0.self_attn.q_proj.weight",
                test::LoraRequest());
  ExpectRefused(path_ + "x", Progress(), absl::StatusCode::kNotFound, "statex");
}

TEST_F(SavedState, DamageIsNoticedBeforeAnythingChanges) {
  const std::string file = path_ + "/state-00002-of-00002.safetensors";
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekp(static_cast<int64_t>(fs::file_size(file)) - 1000);
  stream.put(77);
  stream.close();
  ExpectRefused(path_, Progress(), absl::StatusCode::kDataLoss,
                "is damaged: its content hash is not the manifest's");
}

TEST_F(SavedState, MissingFilesAreNamed) {
  fs::remove(path_ + "/state-00001-of-00002.safetensors");
  ExpectRefused(path_, Progress(), absl::StatusCode::kNotFound,
                "state-00001-of-00002.safetensors");
  fs::remove(path_ + "/manifest.json");
  ExpectRefused(path_, Progress(), absl::StatusCode::kNotFound,
                "manifest.json");
}

TEST_F(SavedState, IsNotWrittenOver) {
  RunGroup(2, test::FullRequest(), [&](test::TrainerRank& rank) {
    const absl::Status status =
        SaveTrainingState(rank.trainer(), path_, Progress(), 1).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists) << status;
    EXPECT_EQ(
        SaveTrainingState(rank.trainer(), "", Progress(), 1).status().code(),
        absl::StatusCode::kInvalidArgument);
    // A file where a directory is needed.
    EXPECT_EQ(SaveTrainingState(rank.trainer(), path_ + "/manifest.json/x",
                                Progress(), 1)
                  .status()
                  .code(),
              absl::StatusCode::kFailedPrecondition);
    return Step(rank, 0);
  });
}

TEST_F(SavedState, PendingGradientsAreRefused) {
  RunGroup(2, test::FullRequest(), [&](test::TrainerRank& rank) {
    OCTET_RETURN_IF_ERROR(rank.Accumulate(3, 1));
    for (const absl::Status& status :
         {SaveTrainingState(rank.trainer(), path_ + "2", Progress(), 1)
              .status(),
          LoadTrainingState(rank.trainer(), path_, Progress(), 1).status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
      EXPECT_THAT(std::string(status.message()),
                  HasSubstr("gradients of 3 slots are pending"));
    }
    return absl::OkStatus();
  });
  EXPECT_FALSE(fs::exists(path_ + "2"));
}

TEST(StateKillTest, KilledWhileSavingLeavesNothingOrAll) {
  const test::TempDir dir;
  int whole = 0;
  for (int trial = 0; trial < 20; ++trial) {
    // The same path again: what a killed process left is in the way of nobody.
    const std::string path = dir.path() + "/state";
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      RunGroup(2, test::FullRequest(), [&](test::TrainerRank& rank) {
        return SaveTrainingState(rank.trainer(), path, Progress(), 1).status();
      });
      _exit(0);
    }
    absl::SleepFor(absl::Milliseconds(10 + 7 * trial));
    kill(child, SIGKILL);
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
    if (!fs::exists(path)) continue;
    ++whole;
    RunGroup(3, test::FullRequest(), [&](test::TrainerRank& rank) {
      return LoadTrainingState(rank.trainer(), path, Progress(), 1).status();
    });
    fs::remove_all(path);
  }
  RecordProperty("whole", whole);
}

}  // namespace
}  // namespace octet
