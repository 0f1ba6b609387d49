// Requests that want their routes, from the engine's side: the test is the
// worker group, and knows what it computed.
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/request_engine.h"
#include "coordinator/route_log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/toy_tokenizer.h"

namespace octet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kLayers = 3;
constexpr int kTopK = 2;
constexpr int kSampled = 260;

// What `token` at `position` takes when the group has seen `version` updates of
// the weights.
int32_t RouteOf(int layer, int k, int32_t position, int32_t token,
                int version) {
  return (position * 31 + token * 7 + layer * 5 + k + version * 101) % 251;
}

// The chunk's, [L] of [tokens, K].
v1::SlotRoutes RoutesOf(const v1::SequenceChunk& chunk, int version) {
  v1::SlotRoutes routes;
  for (int layer = 0; layer < kLayers; ++layer) {
    v1::LayerRoutes* ids = routes.add_layers();
    for (int i = 0; i < chunk.token_ids_size(); ++i) {
      for (int k = 0; k < kTopK; ++k) {
        ids->add_expert_ids(RouteOf(layer, k, chunk.start_position() + i,
                                    chunk.token_ids(i), version));
      }
    }
  }
  return routes;
}

class RoutesTest : public ::testing::Test {
 protected:
  struct Request {
    std::shared_ptr<GenerateQueue> queue;
    GenerateSpec spec;
    std::vector<v1::GenerateResponse> chunks;
    absl::Status status;
  };

  RoutesTest() : tokenizer_(test::ToyTokenizer()), events_(64) {}

  void Connect(std::vector<int32_t> rank_blocks, int32_t max_step_tokens) {
    engine_ = std::make_unique<RequestEngine>(RequestEngine::Options(),
                                              *tokenizer_, events_);
    v1::Hello hello;
    hello.set_max_step_tokens(max_step_tokens);
    hello.mutable_model()->set_vocab_size(tokenizer_->vocab_size());
    hello.mutable_model()->set_max_position(1000);
    hello.mutable_model()->set_num_layers(kLayers);
    hello.mutable_model()->set_top_k(kTopK);
    hello.mutable_topology()->set_kv_block_tokens(4);
    for (const int32_t blocks : rank_blocks) {
      hello.mutable_topology()->add_ranks()->set_num_kv_blocks(blocks);
    }
    engine_->Connect(hello, 1, absl::UnixEpoch());
  }

  Request& Submit(int32_t prompt_tokens, int32_t max_new, int32_t n = 1,
                  bool return_routes = true) {
    Request& request = *requests_.emplace_back(std::make_unique<Request>());
    request.spec.request_id = absl::StrCat("r", requests_.size());
    for (int32_t i = 0; i < prompt_tokens; ++i) {
      request.spec.prompt.push_back(i == 0 ? 1 : 259 + i % 12);
    }
    request.spec.max_new_tokens = max_new;
    request.spec.num_continuations = n;
    request.spec.sample.set_num_logprobs(-1);
    request.spec.return_routes = return_routes;
    request.queue = std::make_shared<GenerateQueue>(1000);
    engine_->SubmitGenerate(static_cast<RequestKey>(requests_.size()), 1,
                            request.spec, request.queue, absl::UnixEpoch());
    return request;
  }

  // What the group answers; counts what it computes.
  v1::StepResult Answer(const v1::Plan& plan) {
    v1::StepResult result;
    result.set_step_id(plan.step_id());
    if (plan.train().has_create_run()) {
      result.mutable_train()->mutable_run();
    } else if (plan.has_train()) {
      ++version_;
      result.mutable_train()->mutable_optim_step()->set_step(version_);
    }
    for (const v1::SequenceChunk& chunk : plan.forward().chunks()) {
      num_started_ += chunk.start_position() == 0;
      num_computed_ += chunk.token_ids_size();
      if (!chunk.has_sample() && !chunk.return_routes()) continue;
      v1::SequenceResult* sequence = result.add_sequences();
      sequence->set_sequence_id(chunk.sequence_id());
      sequence->set_token_id(chunk.has_sample() ? kSampled : -1);
      if (chunk.return_routes()) {
        *sequence->mutable_routes() = RoutesOf(chunk, version_);
      }
    }
    return result;
  }

  bool Step() {
    const std::optional<v1::Plan> plan = engine_->NextPlan(absl::UnixEpoch());
    if (!plan.has_value()) return false;
    const absl::Status status =
        engine_->HandleResult(Answer(*plan), absl::UnixEpoch());
    EXPECT_TRUE(status.ok()) << status;
    return true;
  }

  void RunToEnd() {
    while (Step()) {
    }
    for (const auto& request : requests_) {
      v1::GenerateResponse chunk;
      while (request->queue->Pop(&chunk, &request->status) ==
             GenerateQueue::Next::kMessage) {
        request->chunks.push_back(chunk);
      }
    }
  }

  // Each continuation's last chunk has the routes of the prompt and of all
  // tokens but the last, of `version`, and no other chunk has any.
  static void ExpectRoutes(const Request& request, int version) {
    EXPECT_TRUE(request.status.ok()) << request.status;
    const int32_t num_prompt = static_cast<int32_t>(request.spec.prompt.size());
    const int32_t num_tokens = num_prompt + request.spec.max_new_tokens;
    std::set<int32_t> ended;
    for (const v1::GenerateResponse& chunk : request.chunks) {
      if (chunk.finish_reason() == v1::FINISH_REASON_UNSPECIFIED) {
        EXPECT_FALSE(chunk.has_routes());
        continue;
      }
      EXPECT_TRUE(ended.insert(chunk.index()).second);
      ASSERT_EQ(chunk.routes().layers_size(), kLayers);
      for (int layer = 0; layer < kLayers; ++layer) {
        const auto& ids = chunk.routes().layers(layer).expert_ids();
        ASSERT_EQ(ids.size(), num_tokens * kTopK);
        for (int32_t i = 0; i < ids.size(); ++i) {
          const int32_t position = i / kTopK;
          const int32_t token =
              position < num_prompt ? request.spec.prompt[position] : kSampled;
          EXPECT_EQ(ids[i],
                    position == num_tokens - 1
                        ? -1
                        : RouteOf(layer, i % kTopK, position, token, version))
              << "layer " << layer << ", position " << position;
        }
      }
    }
    EXPECT_EQ(static_cast<int32_t>(ended.size()),
              request.spec.num_continuations);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  EventHub events_;
  std::unique_ptr<RequestEngine> engine_;
  std::vector<std::unique_ptr<Request>> requests_;
  int version_ = 0;
  int num_started_ = 0;
  int64_t num_computed_ = 0;
};

TEST_F(RoutesTest, EveryPromptIsComputedInChunksForEachContinuation) {
  Connect({100}, 7);
  const Request& warm = Submit(20, 4, 1, false);
  RunToEnd();
  for (const v1::GenerateResponse& chunk : warm.chunks) {
    EXPECT_FALSE(chunk.has_routes());
  }
  num_started_ = num_computed_ = 0;
  const Request& routed = Submit(20, 6, 3);
  RunToEnd();
  ExpectRoutes(routed, 0);
  EXPECT_EQ(num_started_, 3);
  EXPECT_EQ(num_computed_, 3 * (20 + 5));
  EXPECT_EQ(routed.chunks.back().usage().cached_tokens(), 0);
  // What it computed is of use to others.
  const Request& other = Submit(20, 2, 1, false);
  RunToEnd();
  EXPECT_EQ(other.chunks.back().usage().cached_tokens(), 16);
}

TEST_F(RoutesTest, OneTokenHasTheRoutesOfItsPrompt) {
  Connect({100}, 50);
  const Request& request = Submit(3, 1);
  RunToEnd();
  ExpectRoutes(request, 0);
}

TEST_F(RoutesTest, APreemptedSequenceIsComputedAnew) {
  Connect({10, 10}, 16);
  std::vector<const Request*> requests;
  for (int i = 0; i < 6; ++i) requests.push_back(&Submit(6 + i, 24));
  RunToEnd();
  v1::GetInfoResponse info;
  engine_->FillInfo(&info);
  EXPECT_GT(info.preemptions(), 0);
  EXPECT_EQ(num_started_, 6 + info.preemptions());
  for (const Request* request : requests) ExpectRoutes(*request, 0);
}

TEST_F(RoutesTest, AfterATrainingStepTheyAreThoseOfTheNewWeights) {
  Connect({100}, 9);
  v1::TrainPlan create;
  create.mutable_create_run()->set_run_id("run");
  v1::TrainPlan step;
  step.mutable_optim_step()->set_run_id("run");
  step.mutable_optim_step()->set_seq_no(1);
  int answered = 0;
  engine_->Train(create, [&](absl::StatusOr<v1::TrainResult> answer) {
    answered += answer.ok();
  });
  ASSERT_TRUE(Step());
  Submit(20, 12);
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(Step());
  engine_->Train(step, [&](absl::StatusOr<v1::TrainResult> answer) {
    answered += answer.ok();
  });
  RunToEnd();
  EXPECT_EQ(answered, 2);
  EXPECT_EQ(version_, 1);
  EXPECT_EQ(num_started_, 2);
  ExpectRoutes(*requests_[0], 1);
}

TEST_F(RoutesTest, AnAnswerThatLacksThemEndsTheGroup) {
  const auto refusal = [&](auto spoil) {
    requests_.clear();
    Connect({100}, 50);
    Submit(5, 2);
    v1::StepResult result = Answer(*engine_->NextPlan(absl::UnixEpoch()));
    spoil(*result.mutable_sequences(0)->mutable_routes());
    return std::string(
        engine_->HandleResult(result, absl::UnixEpoch()).message());
  };
  EXPECT_EQ(
      refusal([](auto& routes) { routes.mutable_layers()->RemoveLast(); }),
      "the group returned routes of 2 layers, expected 3");
  EXPECT_EQ(refusal([](auto& routes) {
              routes.mutable_layers(1)->mutable_expert_ids()->RemoveLast();
            }),
            "the group returned 9 routes of 5 tokens, expected 10");
}

TEST(RouteLogTest, PutReplacesEverythingFromItsPosition) {
  const auto of = [](std::vector<int32_t> ids) {
    v1::SlotRoutes routes;
    routes.add_layers()->mutable_expert_ids()->Add(ids.begin(), ids.end());
    return routes;
  };
  RouteLog log;
  log.Put(0, 2, of({1, 2, 3, 4}));
  log.Put(2, 1, of({5, 6}));
  log.Put(1, 1, of({7, 8}));
  EXPECT_THAT(log.Take().layers(0).expert_ids(),
              ElementsAre(1, 2, 7, 8, -1, -1));
  log.Put(0, 1, of({9, 9}));
  EXPECT_THAT(log.Take().layers(0).expert_ids(), ElementsAre(9, 9, -1, -1));
}

}  // namespace
}  // namespace octet
