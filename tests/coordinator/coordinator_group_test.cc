// Worker groups that come, fail, come back, or are refused; health and events.
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/coordinator/service_harness.h"

namespace octet::test {
namespace {

using ::testing::HasSubstr;

constexpr char kService[] = "octet.v1.Inference";
constexpr int kServing = 1;
constexpr int kNotServing = 2;
const std::vector<int32_t> kPrompt = {1, 260, 261, 262, 263, 270};

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

v1::GroupFailure DispatchFailure() {
  v1::GroupFailure failure;
  failure.set_rank(3);
  failure.set_host("node7");
  failure.set_operation("dispatch");
  failure.set_layer(5);
  failure.set_step_id(17);
  failure.add_missing_ranks(2);
  failure.set_message("no answer within 5 s");
  return failure;
}

TEST(GroupTest, ACoordinatorWithoutAGroupWaits) {
  ServiceHarness harness;
  const auto info = harness.client().GetInfo();
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->state(), v1::GROUP_STATE_WAITING);
}

TEST(GroupTest, AFailureIsATypedErrorAndTheNextGroupServes) {
  ServiceHarness harness;
  FakeWorkerGroup::Options options;
  options.step_time = absl::Milliseconds(1);
  harness.StartGroup(options);
  AsyncGenerate running(harness, IdsRequest(kPrompt, 200));
  ASSERT_TRUE(
      ServiceHarness::Eventually([&] { return running.num_chunks() > 3; }));
  harness.group().FailNextStep(DispatchFailure());
  const absl::Status status = running.Wait().status;
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Message(status),
            "the worker group failed at rank 3 on node7 in dispatch, layer 5, "
            "step 17, missing ranks 2: no answer within 5 s");
  const auto payload =
      status.GetPayload("type.googleapis.com/octet.v1.GroupFailure");
  ASSERT_TRUE(payload.has_value());
  v1::GroupFailure failure;
  ASSERT_TRUE(failure.ParseFromString(std::string(*payload)));
  EXPECT_EQ(failure.operation(), "dispatch");
  EXPECT_EQ(failure.rank(), 3);

  auto info = harness.client().GetInfo();
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->state(), v1::GROUP_STATE_FAILED);
  EXPECT_EQ(info->last_failure().rank(), 3);
  EXPECT_TRUE(harness.group().WaitEnd().ok());
  EXPECT_THAT(Message(harness.Generate(IdsRequest(kPrompt, 5)).status),
              HasSubstr("in dispatch"));

  harness.StopGroup();
  harness.StartGroup();
  EXPECT_EQ(harness.group().epoch(), 2);
  const auto again = harness.Generate(IdsRequest(kPrompt, 20));
  ASSERT_TRUE(again.status.ok()) << again.status;
  EXPECT_EQ(again.continuations.at(0).ids,
            harness.model().Continue(kPrompt, 20, 0, 0));
  EXPECT_EQ(harness.client().GetInfo()->state(), v1::GROUP_STATE_READY);
}

TEST(GroupTest, AnErrorAsLongAsItLikesReachesTheClient) {
  ServiceHarness harness;
  harness.StartGroup();
  v1::GroupFailure failure = DispatchFailure();
  failure.set_message(std::string(100000, 'x'));
  harness.group().FailNextStep(failure);
  const absl::Status status = harness.Generate(IdsRequest(kPrompt, 9)).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(status), HasSubstr("missing ranks 2: xxxx"));
  EXPECT_TRUE(status.GetPayload("type.googleapis.com/octet.v1.GroupFailure")
                  .has_value());

  harness.StopGroup();
  harness.StartGroup();
  for (int rank = 0; rank < 5000; ++rank) failure.add_missing_ranks(rank);
  harness.group().FailNextStep(failure);
  EXPECT_THAT(Message(harness.Generate(IdsRequest(kPrompt, 9)).status),
              HasSubstr("in dispatch, layer 5, step 17, missing ranks 2, 0, "));

  v1::TokenizeRequest request;
  std::string name;
  for (int i = 0; i < 5000; ++i) name += "\u00e9";
  request.mutable_chat()->set_template_name(name);
  const absl::Status unknown = harness.client().Tokenize(request).status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(unknown), HasSubstr("chat.template_name is '\u00e9"));
}

TEST(GroupTest, ABrokenConnectionEndsRunningAndWaitingRequests) {
  ServiceHarness harness;
  harness.StartGroup();
  harness.group().Hold();
  AsyncGenerate first(harness, IdsRequest(kPrompt, 20));
  AsyncGenerate second(harness, IdsRequest(kPrompt, 20));
  v1::ScoreRequest score;
  score.mutable_prompt()->set_text(std::string("a be cafe"));
  absl::Status score_status;
  std::thread scorer(
      [&] { score_status = harness.client().Score(score).status(); });
  ASSERT_TRUE(ServiceHarness::Eventually([&] {
    const auto info = harness.client().GetInfo();
    return info->requests_running() + info->requests_waiting() == 3;
  }));
  harness.group().Break();
  EXPECT_EQ(first.Wait().status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(second.Wait().status),
              HasSubstr("the connection to its rank 0"));
  scorer.join();
  EXPECT_EQ(score_status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(harness.EventuallyIdle());
}

TEST(GroupTest, AWrongAnswerEndsTheGroup) {
  ServiceHarness harness;
  harness.StartGroup();
  harness.group().BreakProtocol();
  const auto outcome = harness.Generate(IdsRequest(kPrompt, 20));
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(outcome.status), HasSubstr("answered step -5"));
  const grpc::Status end = harness.group().WaitEnd();
  EXPECT_THAT(end.error_message(), HasSubstr("answered step -5"));
  harness.StartGroup();
  EXPECT_TRUE(harness.Generate(IdsRequest(kPrompt, 20)).status.ok());
}

TEST(GroupTest, ASecondGroupIsRefused) {
  ServiceHarness harness;
  harness.StartGroup();
  FakeWorkerGroup second(harness.GroupOptions({}));
  EXPECT_FALSE(second.WaitWelcome());
  const grpc::Status status = second.WaitEnd();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(status.error_message(),
            "worker group 1 is connected, expected none: end it first");
  EXPECT_TRUE(harness.Generate(IdsRequest(kPrompt, 20)).status.ok());
}

TEST(GroupTest, AWrongHelloIsRefused) {
  Coordinator::Options coordinator;
  coordinator.expected_vocab_size = 300;
  ServiceHarness harness(coordinator);
  const auto refusal = [&](FakeWorkerGroup::Options options) {
    FakeWorkerGroup group(options);
    EXPECT_FALSE(group.WaitWelcome());
    const grpc::Status status = group.WaitEnd();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    return status.error_message();
  };
  auto options = harness.GroupOptions({});
  options.protocol_version = 9;
  EXPECT_EQ(refusal(options),
            "the worker group's protocol_version is 9, expected 1");
  options = harness.GroupOptions({});
  EXPECT_EQ(refusal(options),
            "the worker group's vocab_size is 273, expected 300, the size of "
            "this model");
  options.model.vocab_size = 300;
  options.rank_blocks = {};
  EXPECT_EQ(refusal(options),
            "the worker group's number of ranks is 0, expected 1 or more");
  options.rank_blocks = {10, 0};
  EXPECT_EQ(refusal(options),
            "the worker group's num_kv_blocks of rank 1 is 0, expected 1 or "
            "more, and at most 16777216 on all ranks");
  options.rank_blocks = {10, 1 << 24};
  EXPECT_EQ(refusal(options),
            "the worker group's num_kv_blocks of rank 1 is 16777216, expected "
            "1 or more, and at most 16777216 on all ranks");
  options.rank_blocks = {10};
  options.max_step_tokens = 0;
  EXPECT_EQ(refusal(options),
            "the worker group's max_step_tokens is 0, expected 1 or more");
}

TEST(GroupTest, TopologyStatsAndInfo) {
  ServiceHarness harness;
  harness.StartGroup();
  const auto topology = harness.client().GetTopology();
  ASSERT_TRUE(topology.ok()) << topology.status();
  EXPECT_EQ(topology->epoch(), 1);
  EXPECT_EQ(topology->ranks_size(), 2);
  AsyncGenerate running(harness, IdsRequest(kPrompt, 100));
  const auto stats = harness.client().GetExpertStats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->ranks(0).bytes_sent(), 123);
  ASSERT_TRUE(running.Wait().status.ok());
  ASSERT_TRUE(harness.EventuallyIdle());
  const auto info = harness.client().GetInfo();
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->version(), "0.1.0");
  EXPECT_EQ(info->prompt_tokens(), 6);
  EXPECT_EQ(info->generation_tokens(), 100);
  EXPECT_EQ(info->kv_blocks_total(), 128);
  EXPECT_EQ(info->model().vocab_size(), 273);
  EXPECT_GE(info->steps(), 100);
  ASSERT_TRUE(harness.Generate(IdsRequest(kPrompt, 1)).status.ok());
  EXPECT_EQ(harness.client().GetInfo()->cached_tokens(), 4);
}

TEST(HealthTest, FollowsTheGroupAndItsProgress) {
  Coordinator::Options options;
  options.stall_after = absl::Milliseconds(100);
  ServiceHarness harness(options);
  const auto eventually = [&](int status) {
    return ServiceHarness::Eventually(
        [&] { return harness.Health(kService) == status; });
  };
  EXPECT_EQ(harness.Health(""), kServing);
  EXPECT_EQ(harness.Health(kService), kNotServing);
  harness.StartGroup();
  EXPECT_TRUE(eventually(kServing));
  harness.group().Hold();
  AsyncGenerate stuck(harness, IdsRequest(kPrompt, 5));
  EXPECT_TRUE(eventually(kNotServing));
  EXPECT_EQ(harness.Health(""), kServing);
  harness.group().Release();
  EXPECT_TRUE(stuck.Wait().status.ok());
  EXPECT_TRUE(eventually(kServing));
  harness.StopGroup();
  EXPECT_TRUE(eventually(kNotServing));
  EXPECT_EQ(harness.Health(""), kServing);
  EXPECT_EQ(harness.Health("no.such.Service"), -1);
}

TEST(EventsTest, WatchersSeeGroupsFailuresAndPreemptions) {
  ServiceHarness harness;
  absl::Mutex mu;
  std::vector<v1::Event> events;
  std::thread watcher([&] {
    // Ends when a group was seen to come and to go.
    bool ready = false;
    const absl::Status status =
        harness.client().WatchEvents([&](const v1::Event& event) {
          absl::MutexLock lock(&mu);
          events.push_back(event);
          ready = ready || event.has_group_ready();
          return !(ready && event.has_group_failure());
        });
    EXPECT_TRUE(status.ok()) << status;
  });
  const auto count = [&](v1::Event::KindCase kind) {
    absl::MutexLock lock(&mu);
    int number = 0;
    for (const v1::Event& event : events) number += event.kind_case() == kind;
    return number;
  };
  // The subscription has no answer of its own: groups come until one is seen.
  FakeWorkerGroup::Options options;
  options.rank_blocks = {12};
  while (count(v1::Event::kGroupReady) == 0) {
    harness.StartGroup(options);
    absl::SleepFor(absl::Milliseconds(50));
    if (count(v1::Event::kGroupReady) == 0) harness.StopGroup();
  }
  std::vector<std::unique_ptr<AsyncGenerate>> calls;
  for (int32_t i = 0; i < 6; ++i) {
    auto request = IdsRequest({1, 260 + i, 261}, 40);
    request.set_request_id(absl::StrCat("r", i));
    calls.push_back(std::make_unique<AsyncGenerate>(harness, request));
  }
  for (auto& call : calls) EXPECT_TRUE(call->Wait().status.ok());
  EXPECT_TRUE(ServiceHarness::Eventually(
      [&] { return count(v1::Event::kPreemption) > 0; }));
  EXPECT_EQ(harness.group().complaint(), "");
  harness.StopGroup();
  watcher.join();
  EXPECT_GE(count(v1::Event::kGroupFailure), 1);
}

}  // namespace
}  // namespace octet::test
