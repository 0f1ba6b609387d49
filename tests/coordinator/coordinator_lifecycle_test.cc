// Cancels, deadlines, full queues, slow clients, shutdown.
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/coordinator/service_harness.h"
#include "tests/fakes/toy_tokenizer.h"

namespace octet::test {
namespace {

using ::testing::HasSubstr;

const std::vector<int32_t> kPrompt = {1, 260, 261, 262, 263, 270};

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

bool EventuallyCounts(ServiceHarness& harness, int running, int waiting) {
  return ServiceHarness::Eventually([&] {
    const auto info = harness.client().GetInfo();
    return info.ok() && info->requests_running() == running &&
           info->requests_waiting() == waiting;
  });
}

TEST(LifecycleTest, WithoutAGroupRequestsAreRefused) {
  ServiceHarness harness;
  const auto outcome = harness.Generate(IdsRequest(kPrompt, 5));
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Message(outcome.status), "no worker group is connected");
  EXPECT_EQ(harness.client().Score({}).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(harness.client().GetExpertStats().status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(harness.client().GetInfo()->state(), v1::GROUP_STATE_WAITING);
}

TEST(LifecycleTest, ABadRequestIsRefusedOnTheWire) {
  ServiceHarness harness;
  harness.StartGroup();
  auto request = IdsRequest(kPrompt, 5);
  request.mutable_sampling()->set_top_p(1.5);
  const auto outcome = harness.Generate(request);
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Message(outcome.status),
            "sampling.top_p is 1.5, expected a number in (0, 1]");
  EXPECT_EQ(Message(harness.client().Score({}).status()),
            "prompt is absent, expected text, token_ids or chat");
}

TEST(LifecycleTest, WhatCanNeverFitIsRefused) {
  ServiceHarness harness;
  FakeWorkerGroup::Options options;
  options.rank_blocks = {4, 5};
  harness.StartGroup(options);
  const auto outcome = harness.Generate(IdsRequest(kPrompt, 100));
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(outcome.status),
              HasSubstr("needs 27 KV blocks of 4 tokens, a rank has 5"));
}

TEST(LifecycleTest, CancelFreesBlocks) {
  ServiceHarness harness;
  harness.StartGroup();
  AsyncGenerate call(harness, IdsRequest(kPrompt, 200),
                     absl::InfiniteDuration(), 5);
  EXPECT_EQ(call.Wait().status.code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(harness.EventuallyIdle());
  EXPECT_EQ(harness.group().complaint(), "");
}

TEST(LifecycleTest, ADisconnectFreesBlocks) {
  ServiceHarness harness;
  harness.StartGroup();
  harness.group().Hold();
  {
    auto channel = grpc::CreateChannel(harness.target(),
                                       grpc::InsecureChannelCredentials());
    auto stub = v1::Inference::NewStub(channel);
    grpc::ClientContext context;
    const auto reader = stub->Generate(&context, IdsRequest(kPrompt, 200));
    ASSERT_TRUE(EventuallyCounts(harness, 1, 0));
    context.TryCancel();
    v1::GenerateResponse chunk;
    EXPECT_FALSE(reader->Read(&chunk));
    reader->Finish();
  }
  EXPECT_TRUE(harness.EventuallyIdle());  // while the step is still in flight
  harness.group().Release();
  EXPECT_TRUE(harness.Generate(IdsRequest(kPrompt, 5)).status.ok());
  EXPECT_EQ(harness.group().complaint(), "");
}

TEST(LifecycleTest, DeadlineInTheQueueAndInAStep) {
  ServiceHarness harness;
  harness.StartGroup();
  harness.group().Hold();
  AsyncGenerate running(harness, IdsRequest(kPrompt, 50),
                        absl::Milliseconds(200));
  ASSERT_TRUE(EventuallyCounts(harness, 1, 0));
  AsyncGenerate waiting(harness, IdsRequest(kPrompt, 50),
                        absl::Milliseconds(50));
  EXPECT_EQ(waiting.Wait().status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(running.Wait().status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(harness.EventuallyIdle());
  harness.group().Release();
  EXPECT_TRUE(harness.Generate(IdsRequest(kPrompt, 5)).status.ok());
  EXPECT_EQ(harness.group().complaint(), "");
}

TEST(LifecycleTest, AFullQueueSaysSo) {
  Coordinator::Options options;
  options.max_waiting_requests = 2;
  ServiceHarness harness(options);
  harness.StartGroup();
  harness.group().Hold();
  AsyncGenerate running(harness, IdsRequest(kPrompt, 5));
  ASSERT_TRUE(EventuallyCounts(harness, 1, 0));
  AsyncGenerate second(harness, IdsRequest(kPrompt, 5));
  AsyncGenerate third(harness, IdsRequest(kPrompt, 5));
  ASSERT_TRUE(EventuallyCounts(harness, 1, 2));
  const auto refused = harness.Generate(IdsRequest(kPrompt, 5));
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Message(refused.status),
            "the waiting queue is full: 2 requests wait, at most 2 may");
  harness.group().Release();
  EXPECT_TRUE(running.Wait().status.ok());
  EXPECT_TRUE(second.Wait().status.ok());
  EXPECT_TRUE(third.Wait().status.ok());
}

TEST(LifecycleTest, ARequestIdInUseIsRefused) {
  ServiceHarness harness;
  harness.StartGroup();
  harness.group().Hold();
  auto request = IdsRequest(kPrompt, 5);
  request.set_request_id("twin");
  AsyncGenerate first(harness, request);
  ASSERT_TRUE(EventuallyCounts(harness, 1, 0));
  const auto second = harness.Generate(request);
  EXPECT_EQ(second.status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(Message(second.status), HasSubstr("request_id is 'twin'"));
  harness.group().Release();
  EXPECT_TRUE(first.Wait().status.ok());
  EXPECT_EQ(first.Wait().chunks[0].request_id(), "twin");
  EXPECT_TRUE(harness.Generate(request).status.ok());  // free again
}

// A client that does not read stops its own sequences, and nothing else. Its
// stream first takes what the HTTP/2 windows hold, a few MiB.
TEST(LifecycleTest, ASlowClientIsPausedAndLosesNothing) {
  constexpr int32_t kNumNew = 3900;
  constexpr int32_t kNumContinuations = 8;
  Coordinator::Options options;
  options.max_queued_chunks = 8;
  ServiceHarness harness(options);
  FakeWorkerGroup::Options group;
  group.max_position = 4000;
  group.rank_blocks = {9000};
  harness.StartGroup(group);
  auto request = IdsRequest(kPrompt, kNumNew);
  request.set_logprobs(20);  // chunks of 400 bytes
  request.set_n(kNumContinuations);
  const auto channel =
      grpc::CreateChannel(harness.target(), grpc::InsecureChannelCredentials());
  const auto stub = v1::Inference::NewStub(channel);
  grpc::ClientContext context;
  const auto reader = stub->Generate(&context, request);
  int64_t steps = -1;
  ASSERT_TRUE(ServiceHarness::Eventually([&] {
    absl::SleepFor(absl::Milliseconds(100));
    return std::exchange(steps, harness.group().num_steps()) ==
               harness.group().num_steps() &&
           steps > 8;
  }));
  EXPECT_LT(steps, kNumNew);
  EXPECT_TRUE(harness.Generate(IdsRequest(kPrompt, 20)).status.ok());
  v1::GenerateResponse chunk;
  std::vector<std::vector<int32_t>> ids(kNumContinuations);
  while (reader->Read(&chunk)) {
    ids[chunk.index()].insert(ids[chunk.index()].end(),
                              chunk.token_ids().begin(),
                              chunk.token_ids().end());
  }
  EXPECT_TRUE(reader->Finish().ok());
  const auto expected = harness.model().Continue(kPrompt, kNumNew, 0, 0);
  for (const auto& each : ids) EXPECT_EQ(each, expected);
  EXPECT_TRUE(harness.EventuallyIdle());
}

TEST(LifecycleTest, ShutdownDrainsAndTellsTheGroup) {
  ServiceHarness harness;
  FakeWorkerGroup::Options options;
  options.step_time = absl::Milliseconds(2);
  harness.StartGroup(options);
  AsyncGenerate running(harness, IdsRequest(kPrompt, 60));
  ASSERT_TRUE(EventuallyCounts(harness, 1, 0));
  harness.coordinator().Shutdown(absl::Seconds(20));
  EXPECT_TRUE(running.Wait().status.ok()) << running.Wait().status;
  EXPECT_EQ(running.Wait().continuations.at(0).ids.size(), 60u);
  EXPECT_TRUE(harness.group().WaitEnd().ok());
  EXPECT_TRUE(harness.group().got_shutdown());
  harness.coordinator().Wait();
}

TEST(LifecycleTest, ShutdownWithoutDrainEndsCalls) {
  ServiceHarness harness;
  harness.StartGroup();
  harness.group().Hold();
  AsyncGenerate running(harness, IdsRequest(kPrompt, 60));
  ASSERT_TRUE(EventuallyCounts(harness, 1, 0));
  harness.coordinator().Shutdown(absl::ZeroDuration());
  EXPECT_EQ(running.Wait().status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Message(running.Wait().status), "the coordinator is shutting down");
}

TEST(LifecycleTest, StartNamesWhatIsWrong) {
  Coordinator::Options options;
  options.tokenizer_path = "/nowhere/tokenizer.model";
  EXPECT_THAT(Message(Coordinator::Start(options).status()),
              HasSubstr("/nowhere/tokenizer.model"));
  options.max_waiting_requests = 0;
  EXPECT_EQ(Message(Coordinator::Start(options).status()),
            "max_waiting_requests is 0, expected 1 or more");
}

TEST(LifecycleTest, APortInUseIsRefused) {
  ServiceHarness harness;
  TempDir folder;
  Coordinator::Options options;
  options.listen_address = harness.target();
  options.tokenizer_path = WriteToyTokenizer(folder.path());
  EXPECT_THAT(Message(Coordinator::Start(options).status()),
              HasSubstr(harness.target()));
}

}  // namespace
}  // namespace octet::test
