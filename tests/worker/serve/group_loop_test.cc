#include "worker/serve/group_loop.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/ranks.h"
#include "tests/worker/model/tiny_model.h"
#include "tests/worker/serve/plans.h"
#include "tests/worker/serve/scripted_source.h"

namespace octet {
namespace {

using test::ScriptedSource;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kBlockTokens = 4;
constexpr int kNumBlocks = 64;

const test::TinyModel& Model() {
  static const auto* const model = new test::TinyModel(
      test::MakeTinyModel(test::TinyConfig(), test::Routing::kRandom, 21));
  return *model;
}

// Answers a call with its loss scale, a bad scale with a refusal, and an
// EndRun with an error that ends the group. Counts the loops that it finished.
class EchoTraining : public TrainHandler {
 public:
  EchoTraining(int rank, std::atomic<int>* finished)
      : rank_(rank), finished_(finished) {}

  absl::StatusOr<v1::TrainResult> Run(int64_t,
                                      const v1::TrainPlan& call) override {
    v1::TrainResult result;
    if (call.has_end_run()) return absl::InternalError("out of step");
    if (call.forward_backward().loss_scale() < 0) {
      result.set_code(static_cast<int>(absl::StatusCode::kInvalidArgument));
      return result;
    }
    result.mutable_forward()->set_loss(call.forward_backward().loss_scale());
    result.mutable_forward()->set_num_tokens(rank_);
    return result;
  }
  absl::Status Finish(int64_t) override {
    if (finished_ != nullptr) ++*finished_;
    return absl::OkStatus();
  }

 private:
  const int rank_;
  std::atomic<int>* const finished_;
};

// Runs the script on `num_ranks` ranks; the ranks' statuses. `missing_rank`
// leaves without a word before the first plan.
std::vector<absl::Status> RunScript(int num_ranks, ScriptedSource& source,
                                    absl::Duration timeout = absl::Seconds(60),
                                    int missing_rank = -1,
                                    std::atomic<int>* finished = nullptr) {
  return test::RunRanks(
      num_ranks,
      [&](Communicator& communicator) -> absl::Status {
        test::TinyRankOptions options;
        options.block_tokens = kBlockTokens;
        options.num_blocks = kNumBlocks;
        OCTET_ASSIGN_OR_RETURN(
            const auto rank, test::NewTinyRank(Model(), options, communicator));
        PlanLimits limits;
        limits.vocab_size = Model().config.vocab_size;
        limits.max_position = Model().config.max_position;
        limits.max_step_tokens = options.max_step_tokens;
        limits.block_tokens = kBlockTokens;
        limits.rank_blocks.assign(num_ranks, kNumBlocks);
        Engine engine(rank->backend.get(), rank->transformer.get(),
                      communicator.rank(), limits);
        if (communicator.rank() == missing_rank) {
          absl::SleepFor(3 * timeout);
          return absl::OkStatus();
        }
        EchoTraining training(communicator.rank(), finished);
        return GroupLoop(&communicator, &engine, &training,
                         Model().config.num_experts,
                         communicator.rank() == 0 ? &source : nullptr)
            .Run();
      },
      timeout);
}

std::vector<int32_t> Prompt(int sequence) {
  std::vector<int32_t> ids;
  for (int i = 0; i < 3 + 5 * sequence; ++i) {
    ids.push_back((17 * sequence + 7 * i + 1) % 61);
  }
  return ids;
}

std::vector<int32_t> Blocks(int sequence, int num_ranks) {
  std::vector<int32_t> blocks;
  for (int i = 0; i < 12; ++i) {
    blocks.push_back(12 * (sequence / num_ranks) + 11 - i);
  }
  return blocks;
}

v1::Plan NewPlan(int64_t step_id) {
  v1::Plan plan;
  plan.set_step_id(step_id);
  plan.mutable_forward();
  return plan;
}

constexpr int kSequences = 4;

// Prefills all prompts with scores, then samples two further tokens each; the
// sampled tokens are not fed back, so that scripts are known beforehand.
std::vector<v1::Plan> ServeScript(int num_ranks) {
  std::vector<v1::Plan> plans;
  plans.push_back(NewPlan(0));
  for (int s = 0; s < kSequences; ++s) {
    const std::vector<int32_t> ids = Prompt(s);
    v1::SequenceChunk* chunk =
        test::AddChunk(plans[0].mutable_forward(), 100 + s, s % num_ranks, 0,
                       ids, Blocks(s, num_ranks));
    test::SetSample(chunk, 0.8f, 40 + s, 3);
    chunk->set_return_routes(s % 2 == 1);
    for (size_t i = 0; i < ids.size(); ++i) {
      chunk->mutable_score()->add_target_ids(
          i % 5 == 4 ? -1 : static_cast<int32_t>(i));
    }
    chunk->mutable_score()->set_num_logprobs(20);
  }
  for (int step : {1, 2}) {
    plans.push_back(NewPlan(step));
    for (int s = 0; s < kSequences; ++s) {
      const int position = static_cast<int>(Prompt(s).size()) + step - 1;
      v1::SequenceChunk* chunk = test::AddChunk(
          plans.back().mutable_forward(), 100 + s, s % num_ranks, position,
          {(s + 11 * step) % 61}, Blocks(s, num_ranks));
      test::SetSample(chunk, s % 2 == 0 ? 0.0f : 1.3f, 40 + s);
      chunk->set_return_routes(s == 3);
    }
  }
  plans.emplace_back().set_step_id(3);
  plans.back().mutable_collect_expert_stats();
  plans.emplace_back().mutable_shutdown();
  return plans;
}

// Results by step and sequence, as bytes.
std::map<std::string, std::string> BySequence(
    const std::vector<v1::StepResult>& results) {
  std::map<std::string, std::string> out;
  for (const v1::StepResult& result : results) {
    for (const v1::SequenceResult& sequence : result.sequences()) {
      out[absl::StrCat(result.step_id(), "/", sequence.sequence_id())] =
          sequence.SerializeAsString();
    }
  }
  return out;
}

TEST(GroupLoopTest, ResultsAreTheSameBytesAtEveryWidth) {
  ScriptedSource alone(ServeScript(1));
  EXPECT_THAT(RunScript(1, alone), ElementsAre(absl::OkStatus()));
  ASSERT_EQ(alone.results.size(), 4u);
  const auto expected = BySequence(alone.results);
  EXPECT_EQ(expected.size(), 3u * kSequences);
  const v1::SequenceResult& first = alone.results[0].sequences(1);
  EXPECT_EQ(first.sequence_id(), 101);
  EXPECT_EQ(first.scored_size(), 7);  // 8 tokens, one not asked
  EXPECT_EQ(first.scored(0).top_size(), 20);
  EXPECT_EQ(first.sampled().top_size(), 3);
  EXPECT_LT(first.sampled().logprob(), 0);
  ASSERT_EQ(first.routes().layers_size(), Model().config.num_layers);
  EXPECT_EQ(first.routes().layers(0).expert_ids_size(),
            8 * Model().config.top_k);
  EXPECT_FALSE(alone.results[0].sequences(0).has_routes());
  for (int num_ranks : {2, 3, 4, 7, 8, 12}) {
    ScriptedSource source(ServeScript(num_ranks));
    for (const absl::Status& status : RunScript(num_ranks, source)) {
      EXPECT_TRUE(status.ok()) << status;
    }
    EXPECT_EQ(BySequence(source.results), expected) << num_ranks << " ranks";
    EXPECT_EQ(source.failures.size(), 0u);
  }
}

// The routes of Prompt(3), computed in chunks of the given sizes beside another
// sequence that asks for none; one after the other, [L].
std::vector<std::vector<int32_t>> RoutesInChunks(int num_ranks, int home_rank,
                                                 absl::Span<const int> sizes) {
  const std::vector<int32_t> ids = Prompt(3);
  std::vector<v1::Plan> plans;
  int position = 0;
  for (const int size : sizes) {
    const int step = static_cast<int>(plans.size());
    plans.push_back(NewPlan(step));
    v1::ForwardPlan* plan = plans.back().mutable_forward();
    test::AddChunk(plan, 7, num_ranks - 1, step, {5}, Blocks(4, 1));
    test::AddChunk(plan, 8, home_rank, position,
                   absl::MakeConstSpan(ids).subspan(position, size),
                   Blocks(home_rank, 1))
        ->set_return_routes(true);
    position += size;
  }
  EXPECT_EQ(position, std::ssize(ids));
  plans.emplace_back().mutable_shutdown();
  ScriptedSource source(plans);
  for (const absl::Status& status : RunScript(num_ranks, source)) {
    EXPECT_TRUE(status.ok()) << status;
  }
  std::vector<std::vector<int32_t>> routes(Model().config.num_layers);
  for (const v1::StepResult& result : source.results) {
    EXPECT_EQ(result.sequences_size(), 1);
    EXPECT_EQ(result.sequences(0).sequence_id(), 8);
    EXPECT_EQ(result.sequences(0).token_id(), -1);
    const v1::SlotRoutes& found = result.sequences(0).routes();
    EXPECT_EQ(found.layers_size(), std::ssize(routes));
    for (int l = 0; l < found.layers_size(); ++l) {
      const auto& of_layer = found.layers(l).expert_ids();
      routes[l].insert(routes[l].end(), of_layer.begin(), of_layer.end());
    }
  }
  return routes;
}

TEST(GroupLoopTest, RoutesAreTheSameForEveryChunkingHomeAndWidth) {
  const auto whole = RoutesInChunks(1, 0, {18});
  for (const std::vector<int32_t>& layer : whole) {
    ASSERT_EQ(std::ssize(layer), 18 * Model().config.top_k);
    EXPECT_GT(*std::max_element(layer.begin(), layer.end()),
              *std::min_element(layer.begin(), layer.end()));
  }
  EXPECT_NE(whole[0], whole[1]);
  for (const int num_ranks : {1, 2, 4}) {
    for (const int home_rank : {0, num_ranks - 1}) {
      EXPECT_EQ(RoutesInChunks(num_ranks, home_rank, {18}), whole);
      EXPECT_EQ(RoutesInChunks(num_ranks, home_rank, {7, 1, 9, 1}), whole)
          << num_ranks << " ranks, home " << home_rank;
    }
  }
}

TEST(GroupLoopTest, TrainingCallsAreAnsweredByRankZero) {
  std::vector<v1::Plan> plans(2);
  plans[0].set_step_id(5);
  plans[0].mutable_train()->mutable_forward_backward()->set_loss_scale(0.5f);
  plans[1].set_step_id(6);
  plans[1].mutable_train()->mutable_forward_backward()->set_loss_scale(-1);
  plans.emplace_back().mutable_shutdown();
  ScriptedSource source(plans);
  for (const absl::Status& status : RunScript(3, source)) {
    EXPECT_TRUE(status.ok()) << status;
  }
  ASSERT_EQ(source.results.size(), 2u);
  EXPECT_EQ(source.results[0].step_id(), 5);
  EXPECT_EQ(source.results[0].train().forward().loss(), 0.5);
  EXPECT_EQ(source.results[0].train().forward().num_tokens(), 0);
  EXPECT_EQ(source.results[1].train().code(), 3);
}

TEST(GroupLoopTest, ATrainingErrorThatIsNoRefusalEndsTheGroup) {
  std::vector<v1::Plan> plans(1);
  plans[0].set_step_id(7);
  plans[0].mutable_train()->mutable_end_run();
  ScriptedSource source(plans);
  for (const absl::Status& status : RunScript(2, source)) {
    EXPECT_FALSE(status.ok());
  }
  ASSERT_EQ(source.failures.size(), 1u);
  EXPECT_THAT(source.failures[0].message(), HasSubstr("out of step"));
}

TEST(GroupLoopTest, ExpertStatsCountEveryTokenOnce) {
  int64_t tokens = 2 * kSequences;
  for (int s = 0; s < kSequences; ++s) tokens += Prompt(s).size();
  const ModelConfig& config = Model().config;
  for (int num_ranks : {1, 3, 12}) {
    ScriptedSource source(ServeScript(num_ranks));
    RunScript(num_ranks, source);
    ASSERT_EQ(source.results.size(), 4u);
    const v1::ExpertStats& stats = source.results[3].expert_stats();
    EXPECT_EQ(stats.layers_size(), config.num_layers);
    EXPECT_EQ(stats.ranks_size(), num_ranks);
    int64_t of_layers = 0, of_ranks = 0, sent = 0, received = 0;
    for (int layer = 0; layer < stats.layers_size(); ++layer) {
      EXPECT_EQ(stats.layers(layer).layer(), layer);
      for (int64_t count : stats.layers(layer).expert_tokens()) {
        of_layers += count;
      }
    }
    for (int rank = 0; rank < stats.ranks_size(); ++rank) {
      EXPECT_EQ(stats.ranks(rank).rank(), rank);
      for (int64_t count : stats.ranks(rank).expert_tokens()) of_ranks += count;
      sent += stats.ranks(rank).bytes_sent();
      received += stats.ranks(rank).bytes_received();
    }
    EXPECT_EQ(of_layers, tokens * config.top_k * config.num_layers);
    EXPECT_EQ(of_ranks, of_layers);
    EXPECT_EQ(sent, received);
    EXPECT_EQ(sent > 0, num_ranks > 1);
  }
}

TEST(GroupLoopTest, EndsCleanlyWhenTheSourceHasNoMorePlans) {
  ScriptedSource source({NewPlan(0)});  // a plan with no chunks
  std::atomic<int> finished{0};
  for (const absl::Status& status :
       RunScript(3, source, absl::Seconds(60), -1, &finished)) {
    EXPECT_TRUE(status.ok()) << status;
  }
  EXPECT_EQ(source.results.size(), 1u);
  EXPECT_EQ(source.failures.size(), 0u);
  EXPECT_EQ(finished, 3);  // training was told
}

TEST(GroupLoopTest, ABadPlanEndsTheGroupWithItsSentenceOnEveryRank) {
  v1::Plan bad = NewPlan(5);
  test::AddChunk(bad.mutable_forward(), 1, 1, 0, {61}, {0});
  ScriptedSource source({NewPlan(4), bad, NewPlan(6)});
  std::atomic<int> finished{0};
  const auto results = RunScript(3, source, absl::Seconds(60), -1, &finished);
  EXPECT_EQ(finished, 0);
  for (const absl::Status& status : results) {
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("token_ids[0] is 61, expected an id in [0, 60]"));
  }
  ASSERT_EQ(source.failures.size(), 1u);
  EXPECT_EQ(source.failures[0].step_id(), 5);
  EXPECT_EQ(source.failures[0].rank(), 0);
  EXPECT_THAT(source.failures[0].message(), HasSubstr("token_ids[0] is 61"));
  EXPECT_EQ(source.results.size(), 1u);
}

TEST(GroupLoopTest, APlanOfAnUnknownKindIsRefused) {
  v1::Plan plan;
  plan.set_step_id(9);
  ScriptedSource source({plan});
  for (const absl::Status& status : RunScript(2, source)) {
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("step 9 has no kind that this version knows"));
  }
}

TEST(GroupLoopTest, ARankThatStopsIsNamedWithinTheTimeout) {
  v1::Plan plan = NewPlan(17);
  test::AddChunk(plan.mutable_forward(), 1, 0, 0, {1, 2}, {0});
  ScriptedSource source({plan});
  const auto results = RunScript(3, source, absl::Milliseconds(200), 2);
  EXPECT_FALSE(results[0].ok());
  EXPECT_FALSE(results[1].ok());
  ASSERT_EQ(source.failures.size(), 1u);
  const v1::GroupFailure& failure = source.failures[0];
  EXPECT_EQ(failure.operation(), "plan");
  EXPECT_EQ(failure.step_id(), 17);
  EXPECT_FALSE(failure.host().empty());
  EXPECT_THAT(failure.missing_ranks(), ElementsAre(2));
  EXPECT_GE(failure.waited_seconds(), 0.2);
  EXPECT_THAT(failure.message(), HasSubstr("2"));
}

}  // namespace
}  // namespace octet
