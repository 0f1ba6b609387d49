// Many streams at once, with cancels and too few blocks: each must equal its
// own single run, and nothing may leak.
#include <memory>
#include <random>
#include <vector>

#include "coordinator/request.h"
#include "gtest/gtest.h"
#include "tests/coordinator/service_harness.h"

namespace octet::test {
namespace {

struct Call {
  std::vector<int32_t> prompt;
  int32_t max_new = 0;
  int32_t num_continuations = 1;
  uint64_t seed = 0;
  int32_t cancel_after = -1;
  std::unique_ptr<AsyncGenerate> running;
};

std::vector<Call> RandomCalls(int count, uint32_t seed) {
  std::mt19937 random(seed);
  const auto uniform = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  std::vector<Call> calls(count);
  for (Call& call : calls) {
    call.prompt.resize(uniform(1, 60));
    for (size_t i = 0; i < call.prompt.size(); ++i) {
      // A third of the prompts begin alike.
      call.prompt[i] = static_cast<int32_t>(i % 7) + 3;
    }
    if (uniform(0, 2) > 0) {
      for (int32_t& id : call.prompt) id = uniform(3, 272);
    }
    call.max_new = uniform(1, 70);
    call.num_continuations = uniform(0, 7) == 0 ? 3 : 1;
    call.seed = random();
    call.cancel_after = uniform(0, 3) == 0 ? uniform(1, 30) : -1;
  }
  return calls;
}

// `ids` is what the model says, or its beginning when the call was cancelled.
void ExpectOwnRun(const Call& call, const FakeModel& model) {
  const GenerateOutcome& outcome = call.running->Wait();
  if (!outcome.status.ok()) {
    EXPECT_EQ(outcome.status.code(), absl::StatusCode::kCancelled);
    EXPECT_GE(call.cancel_after, 0);
  }
  for (const auto& [idx, continuation] : outcome.continuations) {
    std::vector<int32_t> expected = model.Continue(
        call.prompt, call.max_new, ContinuationSeed(call.seed, idx), 1);
    if (!outcome.status.ok()) {
      ASSERT_LE(continuation.ids.size(), expected.size());
      expected.resize(continuation.ids.size());
    }
    EXPECT_EQ(continuation.ids, expected) << "continuation " << idx;
  }
}

TEST(StressTest, ManyStreamsEachEqualItsOwnRun) {
  ServiceHarness harness;
  FakeWorkerGroup::Options options;
  options.rank_blocks = {40, 48, 56};
  options.max_step_tokens = 24;
  options.model.eos_every = 80;
  options.step_time = absl::Microseconds(200);
  harness.StartGroup(options);
  FakeModel model = harness.model();
  model.eos_every = 80;
  for (uint32_t round = 0; round < 3; ++round) {
    std::vector<Call> calls = RandomCalls(64, round);
    for (Call& call : calls) {
      auto request = IdsRequest(call.prompt, call.max_new);
      request.mutable_sampling()->set_temperature(1);
      request.mutable_sampling()->set_seed(call.seed);
      request.set_n(call.num_continuations);
      call.running = std::make_unique<AsyncGenerate>(
          harness, request, absl::InfiniteDuration(), call.cancel_after);
    }
    for (const Call& call : calls) ExpectOwnRun(call, model);
    EXPECT_TRUE(harness.EventuallyIdle());
    EXPECT_EQ(harness.group().complaint(), "");
  }
  const auto info = harness.client().GetInfo();
  ASSERT_TRUE(info.ok());
  EXPECT_GT(info->preemptions(), 0);
  EXPECT_GT(info->cached_tokens(), 0);
}

}  // namespace
}  // namespace octet::test
