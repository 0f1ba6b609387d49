#include "coordinator/request_validation.h"

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/toy_tokenizer.h"

namespace octet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

v1::ModelConfig Model() {
  v1::ModelConfig model;
  model.set_vocab_size(test::ToyTokenizer()->vocab_size());
  model.set_max_position(32);
  model.add_eos_token_ids(2);
  return model;
}

v1::GenerateRequest Good() {
  v1::GenerateRequest request;
  request.mutable_prompt()->set_text(std::string("a be cafe"));
  return request;
}

absl::StatusOr<GenerateSpec> Validate(const v1::GenerateRequest& request) {
  static const auto& tokenizer = *test::ToyTokenizer().release();
  return ValidateGenerate(request, tokenizer, Model(), 77, 255);
}

void AddIds(v1::GenerateRequest& request, int count, int32_t id) {
  auto* ids = request.mutable_prompt()->mutable_token_ids();
  for (int i = 0; i < count; ++i) ids->add_ids(id);
}

struct BadCase {
  const char* name;
  std::function<void(v1::GenerateRequest&)> spoil;
  const char* message;  // the whole sentence, or its beginning
};

const std::vector<BadCase>& BadCases() {
  using R = v1::GenerateRequest;
  static const auto& cases = *new std::vector<BadCase>{
      {"NoPrompt", [](R& r) { r.clear_prompt(); },
       "prompt is absent, expected text, token_ids or chat"},
      {"EmptyText", [](R& r) { r.mutable_prompt()->set_text(std::string("")); },
       "prompt.text is empty, expected some text"},
      {"NoIds", [](R& r) { r.mutable_prompt()->mutable_token_ids(); },
       "prompt.token_ids is empty, expected at least one id"},
      {"IdTooLarge", [](R& r) { AddIds(r, 3, 70000); },
       "prompt.token_ids[0] is 70000, expected 0 to 272"},
      {"IdNegative", [](R& r) { AddIds(r, 1, -1); },
       "prompt.token_ids[0] is -1, expected 0 to 272"},
      {"TooLong", [](R& r) { AddIds(r, 33, 5); },
       "prompt has 33 tokens, the model's context is 32"},
      {"NoRoom", [](R& r) { AddIds(r, 32, 5); },
       "prompt has 32 tokens, the model's context of 32 leaves no room for a "
       "new one"},
      {"NoMessages", [](R& r) { r.mutable_prompt()->mutable_chat(); },
       "chat.messages is empty, expected at least one message"},
      {"UnknownTemplate",
       [](R& r) {
         r.mutable_prompt()->mutable_chat()->set_template_name(
             std::string("gpt"));
       },
       "chat.template_name is 'gpt', expected one of 'mistral'"},
      {"UnknownRole",
       [](R& r) {
         auto* message = r.mutable_prompt()->mutable_chat()->add_messages();
         message->set_role(std::string("tool"));
         message->set_content(std::string("a"));
       },
       "messages[0].role"},
      {"TemperatureNegative",
       [](R& r) { r.mutable_sampling()->set_temperature(-0.5); },
       "sampling.temperature is -0.5, expected a number >= 0"},
      {"TemperatureNan",
       [](R& r) { r.mutable_sampling()->set_temperature(NAN); },
       "sampling.temperature is nan, expected a number >= 0"},
      {"TemperatureInfinite",
       [](R& r) { r.mutable_sampling()->set_temperature(INFINITY); },
       "sampling.temperature is inf, expected a number >= 0"},
      {"TopK", [](R& r) { r.mutable_sampling()->set_top_k(-3); },
       "sampling.top_k is -3, expected 0 or more"},
      {"TopPZero", [](R& r) { r.mutable_sampling()->set_top_p(0); },
       "sampling.top_p is 0, expected a number in (0, 1]"},
      {"TopPLarge", [](R& r) { r.mutable_sampling()->set_top_p(1.5); },
       "sampling.top_p is 1.5, expected a number in (0, 1]"},
      {"MinP", [](R& r) { r.mutable_sampling()->set_min_p(-0.5); },
       "sampling.min_p is -0.5, expected a number in [0, 1]"},
      {"RepetitionZero",
       [](R& r) { r.mutable_sampling()->set_repetition_penalty(0); },
       "sampling.repetition_penalty is 0, expected a number in [0.001, 1000]"},
      {"RepetitionTiny",
       [](R& r) { r.mutable_sampling()->set_repetition_penalty(1e-38f); },
       "sampling.repetition_penalty is 1e-38, expected a number in [0.001, "
       "1000]"},
      {"RepetitionHuge",
       [](R& r) { r.mutable_sampling()->set_repetition_penalty(1e38f); },
       "sampling.repetition_penalty is 1e+38, expected a number in [0.001, "
       "1000]"},
      {"Presence", [](R& r) { r.mutable_sampling()->set_presence_penalty(3); },
       "sampling.presence_penalty is 3, expected a number in [-2, 2]"},
      {"Frequency",
       [](R& r) { r.mutable_sampling()->set_frequency_penalty(-2.5); },
       "sampling.frequency_penalty is -2.5, expected a number in [-2, 2]"},
      {"MaxNewZero", [](R& r) { r.mutable_stop()->set_max_new_tokens(0); },
       "stop.max_new_tokens is 0, expected 1 or more"},
      {"MinNewNegative", [](R& r) { r.mutable_stop()->set_min_new_tokens(-1); },
       "stop.min_new_tokens is -1, expected 0 to 256"},
      {"MinNewAboveMax",
       [](R& r) {
         r.mutable_stop()->set_max_new_tokens(4);
         r.mutable_stop()->set_min_new_tokens(5);
       },
       "stop.min_new_tokens is 5, expected 0 to 4"},
      {"StopEmpty",
       [](R& r) { r.mutable_stop()->add_stop_strings(std::string("")); },
       "length in bytes of stop.stop_strings[0] is 0, expected 1 to 256"},
      {"StopLong",
       [](R& r) {
         r.mutable_stop()->add_stop_strings(std::string("ok"));
         r.mutable_stop()->add_stop_strings(std::string(257, 'x'));
       },
       "length in bytes of stop.stop_strings[1] is 257, expected 1 to 256"},
      {"StopMany",
       [](R& r) {
         for (int i = 0; i < 17; ++i)
           r.mutable_stop()->add_stop_strings(std::string("x"));
       },
       "number of stop.stop_strings is 17, expected at most 16"},
      {"StopId", [](R& r) { r.mutable_stop()->add_stop_token_ids(273); },
       "stop.stop_token_ids[0] is 273, expected 0 to 272"},
      {"StopIdsMany",
       [](R& r) {
         for (int i = 0; i < 65; ++i) r.mutable_stop()->add_stop_token_ids(4);
       },
       "number of stop.stop_token_ids is 65, expected at most 64"},
      {"NZero", [](R& r) { r.set_n(0); }, "n is 0, expected 1 to 64"},
      {"NLarge", [](R& r) { r.set_n(65); }, "n is 65, expected 1 to 64"},
      {"LogprobsNegative", [](R& r) { r.set_logprobs(-1); },
       "logprobs is -1, expected 0 to 20"},
      {"LogprobsLarge", [](R& r) { r.set_logprobs(21); },
       "logprobs is 21, expected 0 to 20"},
      {"RequestId", [](R& r) { r.set_request_id(std::string(129, 'x')); },
       "length in bytes of request_id is 129, expected at most 128"},
  };
  return cases;
}

class BadRequestTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadRequestTest, GetsOneSentence) {
  v1::GenerateRequest request = Good();
  GetParam().spoil(request);
  const auto spec = Validate(request);
  ASSERT_FALSE(spec.ok());
  EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(spec.status().message()),
              HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(Table, BadRequestTest, ::testing::ValuesIn(BadCases()),
                         [](const auto& info) { return info.param.name; });

TEST(RequestValidationTest, DefaultsAreThoseOfTheProto) {
  const auto spec = Validate(Good());
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->request_id, "00000000000000ff");
  EXPECT_EQ(spec->prompt.front(), 1);  // BOS
  EXPECT_EQ(spec->sample.temperature(), 1);
  EXPECT_EQ(spec->sample.top_p(), 1);
  EXPECT_EQ(spec->sample.repetition_penalty(), 1);
  EXPECT_EQ(spec->sample.num_logprobs(), -1);
  EXPECT_EQ(spec->sample.seed(), 77u);
  EXPECT_EQ(spec->num_continuations, 1);
  EXPECT_THAT(spec->stop_ids, ElementsAre(2));
  EXPECT_TRUE(spec->continues_text);
}

TEST(RequestValidationTest, NewTokensAreCutToTheContext) {
  v1::GenerateRequest request;
  AddIds(request, 30, 5);
  const auto spec = Validate(request);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->max_new_tokens, 2);
}

TEST(RequestValidationTest, IgnoreEosKeepsStopIdsAndBans) {
  v1::GenerateRequest request = Good();
  request.mutable_stop()->set_ignore_eos(true);
  request.mutable_stop()->add_stop_token_ids(9);
  const auto spec = Validate(request);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_THAT(spec->stop_ids, ElementsAre(9));
  EXPECT_THAT(spec->banned_ids, ElementsAre(9, 2));
}

TEST(RequestValidationTest, RoutesMustFitAMessage) {
  const auto tokenizer = test::ToyTokenizer();
  v1::ModelConfig model = Model();
  model.set_num_layers(94);
  model.set_top_k(8);
  model.set_max_position(1 << 20);
  v1::GenerateRequest request;
  AddIds(request, 30, 5);
  request.set_return_routes(true);
  request.mutable_stop()->set_max_new_tokens(44000);
  const auto spec = ValidateGenerate(request, *tokenizer, model, 0, 0);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_TRUE(spec->return_routes);
  request.mutable_stop()->set_max_new_tokens(45000);
  EXPECT_EQ(
      ValidateGenerate(request, *tokenizer, model, 0, 0).status().message(),
      "return_routes for 45030 tokens of 94 layers with 8 experts each gives "
      "33862560 expert ids, expected at most 33554432");
  request.set_return_routes(false);
  EXPECT_FALSE(
      ValidateGenerate(request, *tokenizer, model, 0, 0)->return_routes);
}

// A worker refuses such plans, and refusing one ends its group.
TEST(RequestValidationTest, TinyVocabularies) {
  const auto tokenizer = Tokenizer::WithoutPieces();
  v1::ModelConfig model = Model();
  model.set_vocab_size(4);
  v1::GenerateRequest request;
  AddIds(request, 1, 3);
  request.set_logprobs(5);
  EXPECT_EQ(
      ValidateGenerate(request, *tokenizer, model, 0, 0).status().message(),
      "logprobs is 5, expected 0 to 4");
  request.set_logprobs(4);
  for (int id : {0, 1, 3}) request.mutable_stop()->add_stop_token_ids(id);
  EXPECT_TRUE(ValidateGenerate(request, *tokenizer, model, 0, 0).ok());
  request.mutable_stop()->set_min_new_tokens(1);
  EXPECT_EQ(
      ValidateGenerate(request, *tokenizer, model, 0, 0).status().message(),
      "stop.min_new_tokens is 1, expected 0 when all 4 tokens of the "
      "vocabulary end the text");
}

TEST(RequestValidationTest, ScoreMayFillTheContext) {
  const auto tokenizer = test::ToyTokenizer();
  v1::ScoreRequest request;
  for (int i = 0; i < 32; ++i) {
    request.mutable_prompt()->mutable_token_ids()->add_ids(5);
  }
  const auto spec = ValidateScore(request, *tokenizer, Model());
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_THAT(spec->tokens, SizeIs(32));
  request.mutable_prompt()->mutable_token_ids()->add_ids(5);
  EXPECT_THAT(
      std::string(
          ValidateScore(request, *tokenizer, Model()).status().message()),
      HasSubstr("prompt has 33 tokens, the model's context is 32"));
}

TEST(RequestValidationTest, ContinuationSeedsDiffer) {
  EXPECT_EQ(ContinuationSeed(5, 0), 5u);
  EXPECT_NE(ContinuationSeed(5, 1), ContinuationSeed(5, 2));
  EXPECT_NE(ContinuationSeed(5, 1), ContinuationSeed(6, 1));
}

}  // namespace
}  // namespace octet
