// Generate and Score through the whole coordinator over real gRPC.
#include <cmath>
#include <iterator>
#include <string>
#include <vector>

#include "coordinator/request.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/coordinator/service_harness.h"
#include "tests/fakes/kv_model.h"

namespace octet::test {
namespace {

using ::testing::HasSubstr;

const std::vector<int32_t> kPrompt = {1, 260, 261, 262, 263, 270, 268, 5, 9};

// The text of `ids` after `prompt`, from one decoding of the whole.
std::string TextAfter(const Tokenizer& tokenizer,
                      const std::vector<int32_t>& prompt,
                      const std::vector<int32_t>& ids) {
  std::vector<int32_t> all = prompt;
  all.insert(all.end(), ids.begin(), ids.end());
  const std::string head = *tokenizer.Decode(prompt);
  return tokenizer.Decode(all)->substr(head.size());
}

TEST(GenerateTest, StreamsTheModelsContinuation) {
  ServiceHarness harness;
  harness.StartGroup();
  const auto outcome = harness.Generate(IdsRequest(kPrompt, 40));
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const auto& only = outcome.continuations.at(0);
  EXPECT_EQ(only.ids, harness.model().Continue(kPrompt, 40, 0, 0));
  EXPECT_EQ(only.reason, v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(std::ssize(outcome.chunks), 40);  // token by token
  EXPECT_EQ(outcome.usage.prompt_tokens(), 9);
  EXPECT_EQ(outcome.usage.completion_tokens(), 40);
  EXPECT_GE(only.timings.decode_seconds(), 0);
  EXPECT_TRUE(harness.EventuallyIdle());
  EXPECT_EQ(harness.group().complaint(), "");
}

TEST(GenerateTest, TextEqualsDecodingTheWhole) {
  ServiceHarness harness;
  FakeWorkerGroup::Options options;
  options.model.first_token = 259;  // words: no bytes that make no character
  harness.StartGroup(options);
  const auto outcome = harness.Generate(IdsRequest(kPrompt, 60));
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const auto& only = outcome.continuations.at(0);
  EXPECT_EQ(only.text, TextAfter(harness.tokenizer(), kPrompt, only.ids));
  EXPECT_FALSE(only.text.empty());
}

TEST(GenerateTest, StopStringAcrossTokensIsCutOff) {
  ServiceHarness harness;
  FakeWorkerGroup::Options options;
  options.model.first_token = 259;
  harness.StartGroup(options);
  const auto whole = harness.Generate(IdsRequest(kPrompt, 60));
  const std::string text = whole.continuations.at(0).text;
  ASSERT_GT(text.size(), 30u);
  // Every stop string of this text must give the same prefix.
  for (size_t begin = 3; begin + 7 < 30; begin += 4) {
    const std::string stop = text.substr(begin, 6);
    auto request = IdsRequest(kPrompt, 60);
    request.mutable_stop()->add_stop_strings(stop);
    const auto outcome = harness.Generate(request);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    const auto& only = outcome.continuations.at(0);
    EXPECT_EQ(only.text, text.substr(0, text.find(stop)));
    EXPECT_EQ(only.reason, v1::FINISH_REASON_STOP);
    EXPECT_EQ(only.stop_string, stop);
    EXPECT_LT(only.ids.size(), 60u);
  }
}

TEST(GenerateTest, EndOfSequenceStopsAndIsNotText) {
  ServiceHarness harness;
  FakeWorkerGroup::Options options;
  options.model.eos_every = 10;
  harness.StartGroup(options);
  FakeModel model = harness.model();
  model.eos_every = 10;
  for (int32_t i = 0; i < 5; ++i) {
    const std::vector<int32_t> prompt = {1, 260 + i, 261, 262};
    const auto outcome = harness.Generate(IdsRequest(prompt, 200));
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    const auto& only = outcome.continuations.at(0);
    EXPECT_EQ(only.ids, model.Continue(prompt, 200, 0, 0));
    EXPECT_EQ(only.ids.back(), 2);
    EXPECT_EQ(only.reason, v1::FINISH_REASON_STOP);
    EXPECT_THAT(only.text, ::testing::Not(HasSubstr("</s>")));
  }
}

TEST(GenerateTest, MinNewTokensHoldsTheEndBack) {
  ServiceHarness harness;
  FakeWorkerGroup::Options options;
  options.model.eos_every = 3;
  harness.StartGroup(options);
  auto request = IdsRequest(kPrompt, 100);
  request.mutable_stop()->set_min_new_tokens(30);
  const auto outcome = harness.Generate(request);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_GE(outcome.continuations.at(0).ids.size(), 31u);
  EXPECT_EQ(outcome.continuations.at(0).ids.back(), 2);
}

TEST(GenerateTest, StopIdsStop) {
  ServiceHarness harness;
  harness.StartGroup();
  const auto ids = harness.model().Continue(kPrompt, 40, 0, 0);
  auto request = IdsRequest(kPrompt, 40);
  request.mutable_stop()->add_stop_token_ids(ids[7]);
  const auto outcome = harness.Generate(request);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_LE(outcome.continuations.at(0).ids.size(), 8u);
  EXPECT_EQ(outcome.continuations.at(0).ids.back(), ids[7]);
}

TEST(GenerateTest, SeveralContinuationsShareThePrompt) {
  ServiceHarness harness;
  harness.StartGroup();
  auto request = IdsRequest(kPrompt, 20);
  request.mutable_sampling()->set_temperature(1);
  request.mutable_sampling()->set_seed(42);
  const auto one = harness.Generate(request);
  request.set_n(4);
  const auto four = harness.Generate(request);
  ASSERT_TRUE(four.status.ok()) << four.status;
  ASSERT_EQ(std::ssize(four.continuations), 4);
  EXPECT_EQ(four.seed, 42u);
  EXPECT_EQ(four.continuations.at(0).ids, one.continuations.at(0).ids);
  for (int32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(four.continuations.at(i).ids,
              harness.model().Continue(kPrompt, 20, ContinuationSeed(42, i), 1))
        << i;
    for (int32_t j = 0; j < i; ++j) {
      EXPECT_NE(four.continuations.at(i).ids, four.continuations.at(j).ids);
    }
  }
  EXPECT_EQ(four.usage.prompt_tokens(), 9);
  EXPECT_EQ(four.usage.completion_tokens(), 80);
  EXPECT_EQ(four.usage.cached_tokens(), 8);  // from the first call
}

TEST(GenerateTest, ADrawnSeedIsReturnedAndRepeats) {
  ServiceHarness harness;
  harness.StartGroup();
  auto request = IdsRequest(kPrompt, 20);
  request.mutable_sampling()->set_temperature(1);
  const auto first = harness.Generate(request);
  request.mutable_sampling()->set_seed(first.seed);
  const auto second = harness.Generate(request);
  EXPECT_EQ(first.continuations.at(0).ids, second.continuations.at(0).ids);
}

TEST(GenerateTest, LogprobsAndEcho) {
  ServiceHarness harness;
  harness.StartGroup();
  auto request = IdsRequest(kPrompt, 5);
  request.set_logprobs(2);
  request.set_echo(true);
  const auto outcome = harness.Generate(request);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const auto& only = outcome.continuations.at(0);
  ASSERT_EQ(std::ssize(only.logprobs), 5);
  EXPECT_EQ(only.logprobs[0].sampled().token_id(), only.ids[0]);
  EXPECT_EQ(only.logprobs[0].sampled().logprob(),
            harness.model().Logprob(PrefixHash(kPrompt), only.ids[0]));
  EXPECT_EQ(std::ssize(only.logprobs[0].top()), 2);
  EXPECT_EQ(std::ssize(outcome.chunks[0].prompt_token_ids()), 9);
  EXPECT_EQ(outcome.chunks[0].prompt_text(),
            *harness.tokenizer().Decode(kPrompt));
  EXPECT_EQ(std::ssize(outcome.chunks[1].prompt_token_ids()), 0);
}

TEST(GenerateTest, ChatAndTextPromptsAreTokenized) {
  ServiceHarness harness;
  harness.StartGroup();
  v1::GenerateRequest request;
  request.mutable_prompt()->set_text(std::string("a be"));
  request.mutable_stop()->set_max_new_tokens(3);
  request.mutable_sampling()->set_temperature(0);
  auto outcome = harness.Generate(request);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.continuations.at(0).ids,
            harness.model().Continue(harness.tokenizer().EncodeWithBos("a be"),
                                     3, 0, 0));
  auto* message = request.mutable_prompt()->mutable_chat()->add_messages();
  message->set_role(std::string("user"));
  message->set_content(std::string("a be"));
  outcome = harness.Generate(request);
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
}

TEST(GenerateTest, WithPenaltiesTheHistoryTravels) {
  ServiceHarness harness;
  harness.StartGroup();
  auto request = IdsRequest(kPrompt, 10);
  request.mutable_sampling()->set_repetition_penalty(1.5);
  const auto outcome = harness.Generate(request);
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(harness.group().complaint(), "");
}

TEST(ScoreTest, GivesTheLogprobOfEveryToken) {
  ServiceHarness harness;
  FakeWorkerGroup::Options options;
  options.max_step_tokens = 4;  // several chunks
  harness.StartGroup(options);
  v1::ScoreRequest request;
  request.mutable_prompt()->mutable_token_ids()->mutable_ids()->Add(
      kPrompt.begin(), kPrompt.end());
  request.set_logprobs(3);
  for (int run = 0; run < 2; ++run) {  // the second finds a warm cache
    const auto response = harness.client().Score(request);
    ASSERT_TRUE(response.ok()) << response.status();
    ASSERT_EQ(std::ssize(response->tokens()), 9);
    double sum = 0;
    for (size_t i = 1; i < kPrompt.size(); ++i) {
      const float expected = harness.model().Logprob(
          PrefixHash(absl::MakeConstSpan(kPrompt).first(i)), kPrompt[i]);
      EXPECT_EQ(response->tokens(i).sampled().logprob(), expected) << i;
      EXPECT_EQ(response->tokens(i).sampled().token_id(), kPrompt[i]);
      EXPECT_EQ(std::ssize(response->tokens(i).top()), 3);
      sum += expected;
    }
    EXPECT_EQ(response->tokens(0).sampled().logprob(), 0);
    EXPECT_DOUBLE_EQ(response->sum_logprob(), sum);
    EXPECT_DOUBLE_EQ(response->perplexity(), std::exp(-sum / 8));
  }
}

TEST(TokenizeTest, RoundTrip) {
  ServiceHarness harness;  // no worker group is needed
  v1::TokenizeRequest request;
  request.set_text(std::string("a be cafe."));
  request.set_add_bos(true);
  const auto tokens = harness.client().Tokenize(request);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->token_ids(0), 1);
  EXPECT_EQ(tokens->pieces(0), "<s>");
  const auto text = harness.client().Detokenize(tokens->token_ids());
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, "a be cafe.");
  EXPECT_EQ(harness.client().Detokenize({99999}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace octet::test
