#include "worker/serve/plan_check.h"

#include <functional>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/serve/plans.h"

namespace octet {
namespace {

using ::testing::HasSubstr;

PlanLimits Limits() {
  PlanLimits limits;
  limits.vocab_size = 100;
  limits.max_position = 32;
  limits.max_step_tokens = 10;
  limits.block_tokens = 4;
  limits.rank_blocks = {8, 6};
  return limits;
}

// Two sequences on rank 0, one on rank 1 with the same block ids.
v1::ForwardPlan GoodPlan() {
  v1::ForwardPlan plan;
  test::SetSample(test::AddChunk(&plan, 1, 0, 3, {5, 6, 7}, {2, 0}), 1.0f);
  v1::SequenceChunk* scored = test::AddChunk(&plan, 2, 0, 0, {1, 2}, {7});
  scored->mutable_score()->add_target_ids(2);
  scored->mutable_score()->add_target_ids(-1);
  test::AddChunk(&plan, 3, 1, 3, {5, 6, 7}, {2, 0});
  return plan;
}

TEST(PlanCheckTest, AcceptsAGoodPlanAndAnEmptyOne) {
  EXPECT_TRUE(CheckForwardPlan(GoodPlan(), Limits()).ok());
  EXPECT_TRUE(CheckForwardPlan(v1::ForwardPlan(), Limits()).ok());
}

TEST(PlanCheckTest, SharedPrefixBlocksMayBeReadByMany) {
  v1::ForwardPlan plan;
  test::AddChunk(&plan, 1, 0, 4, {5}, {2, 0});
  test::AddChunk(&plan, 2, 0, 4, {5}, {2, 1});
  EXPECT_TRUE(CheckForwardPlan(plan, Limits()).ok());
}

struct BadPlan {
  std::string name;
  std::function<void(v1::ForwardPlan&)> spoil;
  std::string sentence;
};

class BadPlanTest : public ::testing::TestWithParam<BadPlan> {};

TEST_P(BadPlanTest, IsRefusedWithASentence) {
  v1::ForwardPlan plan = GoodPlan();
  GetParam().spoil(plan);
  const absl::Status status = CheckForwardPlan(plan, Limits());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().sentence));
}

v1::SampleSpec& Sample(v1::ForwardPlan& plan) {
  return *plan.mutable_chunks(0)->mutable_sample();
}

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

INSTANTIATE_TEST_SUITE_P(
    All, BadPlanTest,
    ::testing::Values(
        BadPlan{
            "Home",
            [](v1::ForwardPlan& p) { p.mutable_chunks(1)->set_home_rank(2); },
            "plan: chunk 1 (sequence 2): home_rank is 2, expected a rank "
            "in [0, 1]"},
        BadPlan{
            "NegativeHome",
            [](v1::ForwardPlan& p) { p.mutable_chunks(0)->set_home_rank(-1); },
            "home_rank is -1"},
        BadPlan{
            "NoTokens",
            [](v1::ForwardPlan& p) { p.mutable_chunks(0)->clear_token_ids(); },
            "token_ids is empty, expected at least one token"},
        BadPlan{"TokenTooLarge",
                [](v1::ForwardPlan& p) {
                  p.mutable_chunks(0)->set_token_ids(1, 100);
                },
                "token_ids[1] is 100, expected an id in [0, 99]"},
        BadPlan{"TokenNegative",
                [](v1::ForwardPlan& p) {
                  p.mutable_chunks(0)->set_token_ids(2, -1);
                },
                "token_ids[2] is -1"},
        BadPlan{"NegativePosition",
                [](v1::ForwardPlan& p) {
                  p.mutable_chunks(0)->set_start_position(-1);
                },
                "start_position is -1"},
        BadPlan{"PositionTooLarge",
                [](v1::ForwardPlan& p) {
                  p.mutable_chunks(0)->set_start_position(30);
                },
                "start_position is 30, expected one that keeps its 3 tokens in "
                "[0, 32)"},
        BadPlan{"HugePosition",
                [](v1::ForwardPlan& p) {
                  p.mutable_chunks(0)->set_start_position(2147483647);
                },
                "start_position is 2147483647"},
        BadPlan{"ShortTable",
                [](v1::ForwardPlan& p) {
                  p.mutable_chunks(0)->mutable_block_ids()->RemoveLast();
                },
                "block_ids is 1 long, expected 2 blocks of 4 tokens for "
                "positions up to 5"},
        BadPlan{"BlockOfOtherRank",
                [](v1::ForwardPlan& p) {
                  p.mutable_chunks(2)->set_block_ids(0, 6);
                },
                "block_ids[0] is 6, expected an id in [0, 5]"},
        BadPlan{"NegativeBlock",
                [](v1::ForwardPlan& p) {
                  p.mutable_chunks(0)->set_block_ids(1, -3);
                },
                "block_ids[1] is -3"},
        BadPlan{
            "SequenceTwice",
            [](v1::ForwardPlan& p) { p.mutable_chunks(2)->set_sequence_id(1); },
            "plan: chunk 2 continues sequence 1 again"},
        BadPlan{"TooManyTokens",
                [](v1::ForwardPlan& p) {
                  test::AddChunk(&p, 9, 0, 0, {1, 1, 1, 1, 1, 1}, {4, 5});
                },
                "plan: rank 0 has 11 tokens, expected at most 10"},
        BadPlan{"TwoWriters",
                [](v1::ForwardPlan& p) {
                  p.mutable_chunks(1)->set_block_ids(0, 0);
                },
                "plan: chunks 0 and 1 both write place 0 of block 0 on rank 0"},
        BadPlan{"BlockTwiceInOneTable",
                [](v1::ForwardPlan& p) {
                  p.clear_chunks();
                  test::AddChunk(&p, 1, 0, 0, {1, 1, 1, 1, 1}, {3, 3});
                },
                "plan: chunks 0 and 0 both write place 0 of block 3"},
        BadPlan{"Temperature",
                [](v1::ForwardPlan& p) { Sample(p).set_temperature(-1); },
                "sample.temperature is -1, expected a number of at least 0"},
        BadPlan{"TemperatureNan",
                [](v1::ForwardPlan& p) { Sample(p).set_temperature(kNan); },
                "sample.temperature is nan"},
        BadPlan{"TopK", [](v1::ForwardPlan& p) { Sample(p).set_top_k(-1); },
                "sample.top_k is -1, expected at least 0"},
        BadPlan{"TopP", [](v1::ForwardPlan& p) { Sample(p).set_top_p(0); },
                "sample.top_p is 0, expected a number in (0, 1]"},
        BadPlan{"MinP", [](v1::ForwardPlan& p) { Sample(p).set_min_p(1.5); },
                "sample.min_p is 1.5"},
        BadPlan{"Repetition",
                [](v1::ForwardPlan& p) { Sample(p).set_repetition_penalty(0); },
                "sample.repetition_penalty is 0, expected a number above 0"},
        BadPlan{
            "Presence",
            [](v1::ForwardPlan& p) { Sample(p).set_presence_penalty(kNan); },
            "sample.presence_penalty is nan"},
        BadPlan{
            "Frequency",
            [](v1::ForwardPlan& p) { Sample(p).set_frequency_penalty(kNan); },
            "sample.frequency_penalty is nan"},
        BadPlan{"Logprobs",
                [](v1::ForwardPlan& p) { Sample(p).set_num_logprobs(101); },
                "sample.num_logprobs is 101, expected a number in [-1, 100]"},
        BadPlan{"Banned",
                [](v1::ForwardPlan& p) { Sample(p).add_banned_ids(100); },
                "sample.banned_ids[0] is 100"},
        BadPlan{"History",
                [](v1::ForwardPlan& p) { Sample(p).add_history(-5); },
                "sample.history[0] is -5"},
        BadPlan{"PromptTokens",
                [](v1::ForwardPlan& p) {
                  Sample(p).add_history(5);
                  Sample(p).set_num_prompt_tokens(2);
                },
                "sample.num_prompt_tokens is 2, expected a number in [0, 1]"},
        BadPlan{"Targets",
                [](v1::ForwardPlan& p) {
                  p.mutable_chunks(1)->mutable_score()->add_target_ids(1);
                },
                "score.target_ids is 3 long, expected one for each of 2"},
        BadPlan{"Target",
                [](v1::ForwardPlan& p) {
                  p.mutable_chunks(1)->mutable_score()->set_target_ids(1, -2);
                },
                "score.target_ids[1] is -2, expected an id in [-1, 99]"},
        BadPlan{"ScoreLogprobs",
                [](v1::ForwardPlan& p) {
                  p.mutable_chunks(1)->mutable_score()->set_num_logprobs(-2);
                },
                "score.num_logprobs is -2"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace octet
