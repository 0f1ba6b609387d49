// What a training job makes of saves in the background, against a service that
// only writes manifests: old checkpoints go when a newer one is complete, an
// error ends the job, and a run without room for the copy trains all the same.
#include "client/train/train_job.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "tests/client/data/pipeline_fixture.h"

// Fontconfig, which cairo asks for fonts, keeps memory to the end.
extern "C" const char* __lsan_default_suppressions() {
  return "leak:libfontconfig\n";
}

namespace octet::test {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A save in the background ends when GetRun has been asked `looks` times, or
// when the next call waits for it.
class StubTraining final : public v1::Training::Service {
 public:
  bool room_for_copy = true;
  bool disk_full = false;
  int looks = 2;

  std::vector<bool> background;  // of each SaveState
  // What was there when a save began: names of complete checkpoints.
  std::vector<std::set<std::string>> complete_at_save;

  grpc::Status CreateRun(grpc::ServerContext*, const v1::CreateRunRequest* in,
                         v1::Run* out) override {
    if (in->background_saves() && !room_for_copy) {
      return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                          "rank 0 needs 5 GiB");
    }
    *run_.mutable_config() = *in;
    run_.set_run_id("a");
    *out = run_;
    return grpc::Status::OK;
  }
  grpc::Status GetRun(grpc::ServerContext*, const v1::GetRunRequest*,
                      v1::Run* out) override {
    if (--looks_left_ <= 0) Settle();
    *out = run_;
    return grpc::Status::OK;
  }
  grpc::Status EndRun(grpc::ServerContext*, const v1::EndRunRequest*,
                      v1::Run*) override {
    return Settle();
  }
  grpc::Status Forward(grpc::ServerContext*, const v1::ForwardRequest*,
                       v1::ForwardResponse*) override {
    return grpc::Status::OK;
  }
  grpc::Status ForwardBackward(grpc::ServerContext*,
                               const v1::ForwardBackwardRequest* in,
                               v1::ForwardResponse* out) override {
    for (int i = 0; i < in->slots_size(); ++i) out->add_slots()->set_loss(1);
    return grpc::Status::OK;
  }
  grpc::Status OptimStep(grpc::ServerContext*, const v1::OptimStepRequest*,
                         v1::OptimStepResponse* out) override {
    out->set_step(++step_);
    return grpc::Status::OK;
  }
  grpc::Status SaveState(grpc::ServerContext*, const v1::SaveStateRequest* in,
                         v1::SaveStateResponse* out) override {
    const grpc::Status before = Settle();
    if (!before.ok()) return before;
    background.push_back(in->background());
    std::set<std::string>& complete = complete_at_save.emplace_back();
    const fs::path output = fs::path(in->path()).parent_path().parent_path();
    for (const auto& entry : fs::directory_iterator(output)) {
      if (fs::exists(entry.path() / "state" / "manifest.json")) {
        complete.insert(entry.path().filename().string());
      }
    }
    run_.mutable_last_save()->set_path(in->path());
    run_.mutable_last_save()->set_stage(v1::SAVE_STAGE_WRITING);
    looks_left_ = looks;
    out->set_writing(in->background());
    return in->background() ? grpc::Status::OK : Settle();
  }
  grpc::Status ExportWeights(grpc::ServerContext*,
                             const v1::ExportWeightsRequest* in,
                             v1::ExportWeightsResponse*) override {
    fs::create_directories(in->path());
    return grpc::Status::OK;
  }

 private:
  grpc::Status Settle() {
    v1::StateSave& save = *run_.mutable_last_save();
    if (save.stage() != v1::SAVE_STAGE_WRITING) return grpc::Status::OK;
    if (disk_full) {
      save.set_stage(v1::SAVE_STAGE_FAILED);
      save.set_error(absl::StrCat(save.path(), ": the disk is full"));
      return grpc::Status(grpc::StatusCode::UNKNOWN, save.error());
    }
    save.set_stage(v1::SAVE_STAGE_COMPLETE);
    fs::create_directories(save.path());
    std::ofstream(save.path() + "/manifest.json") << "{}";
    return grpc::Status::OK;
  }

  v1::Run run_;
  int looks_left_ = 0;
  int64_t step_ = 0;
};

class TrainJobTest : public PipelineTest {
 protected:
  TrainJobTest() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    options_.output_dir = dir_.path() + "/out";
    options_.run.set_method(v1::TRAINING_METHOD_FULL);
    options_.train_batch_size = 1;
    options_.max_steps = 10;
    options_.save_steps = 3;
    options_.save_total_limit = 1;
    fs::create_directory(options_.output_dir);
  }
  ~TrainJobTest() override { server_->Shutdown(); }

  absl::Status Run() {
    DataOptions data;
    data.files = {WriteRows("rows.jsonl", 20)};
    const std::unique_ptr<DataPipeline> pipeline = Open(data);
    TrainingClient client(absl::StrCat("127.0.0.1:", port_));
    TrainObserver observer;
    observer.on_note = [this](const std::string& note) {
      notes_.push_back(note);
    };
    return TrainJob(options_, *pipeline, client, observer).Run().status();
  }

  std::set<std::string> Checkpoints() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(options_.output_dir)) {
      const std::string name = entry.path().filename().string();
      if (absl::StartsWith(name, "checkpoint-")) names.insert(name);
    }
    return names;
  }
  std::string Saved(int step) const {
    return absl::StrCat("saved ", options_.output_dir, "/checkpoint-", step);
  }

  StubTraining service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  TrainJobOptions options_;
  std::vector<std::string> notes_;
};

TEST_F(TrainJobTest, AnOldCheckpointGoesWhenANewerOneIsComplete) {
  for (const int looks : {1, 2, 100}) {  // 100: complete when the next waits
    fs::remove_all(options_.output_dir);
    fs::create_directory(options_.output_dir);
    notes_.clear();
    service_.background.clear();
    service_.complete_at_save.clear();
    service_.looks = looks;
    const absl::Status status = Run();
    ASSERT_TRUE(status.ok()) << status;
    // All but the last go on beside steps.
    EXPECT_THAT(service_.background, ElementsAre(true, true, true, false));
    EXPECT_THAT(notes_, ElementsAre(Saved(3), Saved(6), Saved(9), Saved(10)));
    using Names = std::set<std::string>;
    // The one before it is there until the newest is.
    if (looks < 100) {
      EXPECT_THAT(service_.complete_at_save,
                  ElementsAre(Names{}, Names{"checkpoint-3"},
                              Names{"checkpoint-6"}, Contains("checkpoint-9")));
    } else {
      EXPECT_THAT(service_.complete_at_save[2],
                  Names({"checkpoint-3", "checkpoint-6"}));
    }
    EXPECT_THAT(Checkpoints(), ElementsAre("checkpoint-10"));
  }
}

TEST_F(TrainJobTest, AnErrorOfTheWriteEndsTheJob) {
  service_.disk_full = true;
  for (const int looks : {1, 100}) {
    service_.looks = looks;
    const absl::Status status = Run();
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("checkpoint-3/state: the disk is full"));
    EXPECT_TRUE(notes_.empty());
  }
}

TEST_F(TrainJobTest, WithoutRoomForTheCopyItTrainsAndSaysSo) {
  service_.room_for_copy = false;
  const absl::Status status = Run();
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(service_.background, ElementsAre(false, false, false, false));
  EXPECT_EQ(notes_.front(),
            "steps wait while a checkpoint is written: rank 0 needs 5 GiB");
}

TEST_F(TrainJobTest, TheCopyIsNotAskedForWhereNothingIsSavedBeside) {
  service_.room_for_copy = false;
  options_.save_steps = 0;
  EXPECT_TRUE(Run().ok());
  EXPECT_THAT(service_.background, ElementsAre(false));
  EXPECT_THAT(notes_, ElementsAre(Saved(10)));
}

}  // namespace
}  // namespace octet::test
