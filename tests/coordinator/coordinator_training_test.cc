// octet.v1.Training over gRPC, with a worker group that makes its answers up.
#include <string>
#include <thread>

#include "client/training_client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/coordinator/service_harness.h"

namespace octet::test {
namespace {

using ::testing::HasSubstr;

v1::CreateRunRequest NewRun(const std::string& id) {
  v1::CreateRunRequest request;
  request.set_run_id(id);
  request.set_method(v1::TRAINING_METHOD_FULL);
  return request;
}

template <typename Request>
Request Numbered(int64_t seq_no) {
  Request request;
  request.set_run_id("a");
  request.set_seq_no(seq_no);
  return request;
}

TEST(CoordinatorTrainingTest, EveryCallReachesTheGroupAndIsAnswered) {
  ServiceHarness harness;
  harness.StartGroup();
  TrainingClient client(harness.target());
  const auto run = client.CreateRun(NewRun("a"));
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->trainable_parameters(), 7);
  auto backward = Numbered<v1::ForwardBackwardRequest>(1);
  backward.add_slots();
  backward.add_slots();
  EXPECT_EQ(client.ForwardBackward(backward)->loss(), 2);
  EXPECT_EQ(client.ForwardBackward(backward)->loss(), 2);  // a repeat
  EXPECT_EQ(client.OptimStep(Numbered<v1::OptimStepRequest>(2))->step(), 1);
  EXPECT_TRUE(client.ZeroGrad(Numbered<v1::ZeroGradRequest>(3)).ok());
  v1::ForwardRequest forward;
  forward.set_run_id("a");
  EXPECT_EQ(client.Forward(forward)->loss(), 0.5);
  auto save = Numbered<v1::SaveStateRequest>(4);
  save.set_path("/state");
  EXPECT_EQ(client.SaveState(save)->num_bytes(), 12);
  EXPECT_EQ(client.LoadState(Numbered<v1::LoadStateRequest>(5))->client_state(),
            "here");
  v1::ExportWeightsRequest exported;
  exported.set_run_id("a");
  EXPECT_EQ(client.ExportWeights(exported)->files_size(), 1);
  v1::GetRunRequest get;
  get.set_run_id("a");
  const auto now = client.GetRun(get);
  EXPECT_EQ(now->last_seq_no(), 5);
  EXPECT_EQ(now->last_state_path(), "/state");
  EXPECT_EQ(client.ListRuns({})->runs_size(), 1);
  EXPECT_EQ(client.EndRun(Numbered<v1::EndRunRequest>(6))->state(),
            v1::RUN_STATE_ENDED);
  EXPECT_EQ(harness.Health("octet.v1.Training"), 1);
}

TEST(CoordinatorTrainingTest, RefusalsComeWithTheirSentence) {
  ServiceHarness harness;
  TrainingClient client(harness.target());
  EXPECT_EQ(client.CreateRun(NewRun("a")).status().code(),
            absl::StatusCode::kUnavailable);
  harness.StartGroup();
  ASSERT_TRUE(client.CreateRun(NewRun("a")).ok());
  EXPECT_EQ(client.CreateRun(NewRun("b\nc")).status(),
            absl::InvalidArgumentError("run_id has the control character 10 at "
                                       "byte 1, expected printable "
                                       "characters"));
  const auto empty =
      client.ForwardBackward(Numbered<v1::ForwardBackwardRequest>(1));
  EXPECT_EQ(empty.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(empty.status().message(), "slots is empty, expected at least one");
  EXPECT_EQ(client.OptimStep(Numbered<v1::OptimStepRequest>(2)).status().code(),
            absl::StatusCode::kFailedPrecondition);
  v1::GetRunRequest get;
  get.set_run_id("b");
  EXPECT_EQ(client.GetRun(get).status().code(), absl::StatusCode::kNotFound);
}

// Nobody calls meanwhile: the coordinator asks by itself.
TEST(CoordinatorTrainingTest, ASaveInTheBackgroundIsFollowed) {
  ServiceHarness harness;
  harness.StartGroup();
  TrainingClient client(harness.target());
  ASSERT_TRUE(client.CreateRun(NewRun("a")).ok());
  auto save = Numbered<v1::SaveStateRequest>(1);
  save.set_path("/state");
  save.set_background(true);
  EXPECT_TRUE(client.SaveState(save)->writing());
  v1::GetRunRequest get;
  get.set_run_id("a");
  EXPECT_TRUE(ServiceHarness::Eventually([&] {
    return client.GetRun(get)->last_save().stage() == v1::SAVE_STAGE_COMPLETE;
  }));
  EXPECT_EQ(client.GetRun(get)->last_state_path(), "/state");
  EXPECT_TRUE(client.SaveState(save)->writing());  // a repeat: the first answer
}

// Generation and training go on side by side, and no answer is lost.
TEST(CoordinatorTrainingTest, StepsAndGenerationTakeTurns) {
  ServiceHarness harness;
  harness.StartGroup();
  TrainingClient client(harness.target());
  ASSERT_TRUE(client.CreateRun(NewRun("a")).ok());
  AsyncGenerate generate(harness, IdsRequest({1, 260, 261}, 64));
  for (int64_t step = 1; step <= 20; ++step) {
    auto backward = Numbered<v1::ForwardBackwardRequest>(2 * step - 1);
    backward.add_slots();
    ASSERT_TRUE(client.ForwardBackward(backward).ok());
    ASSERT_TRUE(
        client.OptimStep(Numbered<v1::OptimStepRequest>(2 * step)).ok());
  }
  const GenerateOutcome& outcome = generate.Wait();
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.continuations.at(0).ids.size(), 64u);
  EXPECT_EQ(harness.group().complaint(), "");
}

TEST(CoordinatorTrainingTest, AGroupThatEndsEndsTheRun) {
  ServiceHarness harness;
  harness.StartGroup();
  TrainingClient client(harness.target());
  ASSERT_TRUE(client.CreateRun(NewRun("a")).ok());
  harness.StopGroup();
  v1::GetRunRequest get;
  get.set_run_id("a");
  EXPECT_TRUE(ServiceHarness::Eventually(
      [&] { return client.GetRun(get)->state() == v1::RUN_STATE_LOST; }));
  harness.StartGroup();
  EXPECT_EQ(client.ZeroGrad(Numbered<v1::ZeroGradRequest>(1)).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_TRUE(client.CreateRun(NewRun("b")).ok());
}

}  // namespace
}  // namespace octet::test
