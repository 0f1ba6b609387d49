// The step loop with a link that the test plays, without a network, so that it
// also runs under the thread sanitizer.
#include "coordinator/step_loop.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_worker_link.h"
#include "tests/fakes/toy_tokenizer.h"

namespace octet {
namespace {

using ::testing::HasSubstr;

class StepLoopTest : public ::testing::Test {
 protected:
  StepLoopTest() : tokenizer_(test::ToyTokenizer()), events_(64) {
    options_.max_queued_chunks = 4;
  }
  ~StepLoopTest() override { loop_.reset(); }

  void Start() {
    loop_ = std::make_unique<StepLoop>(options_, *tokenizer_, link_, events_);
    loop_->Start();
    v1::Hello hello;
    hello.set_protocol_version(1);
    hello.set_max_step_tokens(16);
    hello.mutable_model()->set_vocab_size(tokenizer_->vocab_size());
    hello.mutable_model()->set_max_position(1000);
    hello.mutable_topology()->set_kv_block_tokens(4);
    hello.mutable_topology()->add_ranks()->set_num_kv_blocks(100);
    ASSERT_TRUE(loop_->CheckHello(hello).ok());
    loop_->OnGroupReady(1, hello);
    while (!loop_->group().ok()) std::this_thread::yield();
  }

  std::shared_ptr<GenerateQueue> Submit(int32_t max_new,
                                        RequestKey* key = nullptr) {
    GenerateSpec spec;
    spec.request_id = absl::StrCat("r", next_id_++);
    spec.prompt = {1, 260, 261};
    spec.max_new_tokens = max_new;
    spec.sample.set_num_logprobs(-1);
    auto queue = loop_->MakeQueue();
    const RequestKey used = loop_->Generate(1, spec, queue);
    if (key != nullptr) *key = used;
    return queue;
  }

  // Answers plans until none comes for a while; returns how many came.
  int Serve(absl::Duration patience = absl::Milliseconds(50)) {
    int count = 0;
    v1::Plan plan;
    while (link_.WaitPlan(&plan, patience)) {
      ++count;
      v1::StepResult result;
      result.set_step_id(plan.step_id());
      for (const auto& chunk : plan.forward().chunks()) {
        auto* sequence = result.add_sequences();
        sequence->set_sequence_id(chunk.sequence_id());
        sequence->set_token_id(260);
      }
      loop_->OnStepResult(1, result);
    }
    return count;
  }

  static int Drain(GenerateQueue& queue, absl::Status* status = nullptr) {
    v1::GenerateResponse chunk;
    absl::Status end;
    int count = 0;
    while (queue.Pop(&chunk, &end) == GenerateQueue::Next::kMessage) ++count;
    if (status != nullptr) *status = end;
    return count;
  }

  StepLoop::Options options_;
  std::unique_ptr<Tokenizer> tokenizer_;
  test::FakeWorkerLink link_;
  EventHub events_;
  std::unique_ptr<StepLoop> loop_;
  int next_id_ = 0;
};

TEST_F(StepLoopTest, AReaderThatStopsBoundsTheQueue) {
  Start();
  const auto queue = Submit(20);
  int read = 0;
  for (int round = 0; round < 40 && read < 20; ++round) {
    Serve();
    EXPECT_LE(queue->size(), 4u);
    read += Drain(*queue);
  }
  EXPECT_EQ(read, 20);
}

TEST_F(StepLoopTest, OnePlanIsInFlight) {
  Start();
  const auto queue = Submit(3);
  v1::Plan plan;
  ASSERT_TRUE(link_.WaitPlan(&plan, absl::Seconds(10)));
  const auto other = Submit(3);
  v1::Plan second;
  EXPECT_FALSE(link_.WaitPlan(&second, absl::Milliseconds(50)));
  EXPECT_EQ(plan.forward().chunks_size(), 1);
}

TEST_F(StepLoopTest, ResultsOfAnotherEpochAreIgnored) {
  Start();
  const auto queue = Submit(3);
  v1::Plan plan;
  ASSERT_TRUE(link_.WaitPlan(&plan, absl::Seconds(10)));
  v1::StepResult result;
  result.set_step_id(-1);
  loop_->OnStepResult(7, result);
  loop_->OnGroupLost(7, {});
  result.set_step_id(plan.step_id());
  auto* sequence = result.add_sequences();
  sequence->set_sequence_id(plan.forward().chunks(0).sequence_id());
  sequence->set_token_id(5);
  loop_->OnStepResult(1, result);
  EXPECT_TRUE(link_.WaitPlan(&plan, absl::Seconds(10)));
  EXPECT_EQ(link_.closed_with(), "");
}

TEST_F(StepLoopTest, AResultWithoutASampledTokenEndsTheGroup) {
  Start();
  const auto queue = Submit(3);
  v1::Plan plan;
  ASSERT_TRUE(link_.WaitPlan(&plan, absl::Seconds(10)));
  v1::StepResult result;
  result.set_step_id(plan.step_id());
  auto* sequence = result.add_sequences();
  sequence->set_sequence_id(plan.forward().chunks(0).sequence_id());
  sequence->set_token_id(100000);
  loop_->OnStepResult(1, result);
  absl::Status status;
  while (status.ok()) Drain(*queue, &status);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("sampled token 100000, expected 0 to 272"));
}

TEST_F(StepLoopTest, SubmitCancelAndReadFromManyThreads) {
  Start();
  std::atomic<bool> done = false;
  std::thread server([&] {
    while (!done) Serve(absl::Milliseconds(20));
  });
  std::vector<std::thread> clients;
  std::atomic<int> next = 0;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&, i] {
      for (int call = 0; call < 20; ++call) {
        GenerateSpec spec;
        spec.request_id = absl::StrCat("c", next++);
        spec.prompt = {1, 260, 261};
        spec.max_new_tokens = 10;
        auto queue = loop_->MakeQueue();
        const RequestKey key = loop_->Generate(1, spec, queue);
        if (call % 4 == i) loop_->Cancel(key);
        v1::GenerateResponse chunk;
        absl::Status status;
        int count = 0;
        for (auto got = GenerateQueue::Next::kEmpty;
             got != GenerateQueue::Next::kClosed;
             got = queue->Pop(&chunk, &status)) {
          count += got == GenerateQueue::Next::kMessage;
          if (got == GenerateQueue::Next::kEmpty) std::this_thread::yield();
        }
        if (call % 4 != i) {
          EXPECT_EQ(count, 10);
        }
        loop_->info();
      }
    });
  }
  for (std::thread& client : clients) client.join();
  done = true;
  server.join();
  EXPECT_TRUE(loop_->Drain(absl::Now() + absl::Seconds(10)));
  EXPECT_EQ(loop_->info().kv_blocks_used(), 0);
}

TEST_F(StepLoopTest, AfterStopEverythingIsRefused) {
  Start();
  const auto queue = Submit(3);
  loop_->Stop();
  absl::Status status;
  Drain(*queue, &status);
  EXPECT_EQ(status.message(), "the coordinator is shutting down");
  Drain(*Submit(3), &status);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  absl::Status score_status;
  loop_->Score(1, {}, [&](absl::StatusOr<v1::ScoreResponse> response) {
    score_status = response.status();
  });
  EXPECT_EQ(score_status.code(), absl::StatusCode::kUnavailable);
  // The plan in flight, then the end.
  v1::Plan plan;
  while (!plan.has_shutdown()) {
    ASSERT_TRUE(link_.WaitPlan(&plan, absl::Seconds(10)));
  }
}

}  // namespace
}  // namespace octet
