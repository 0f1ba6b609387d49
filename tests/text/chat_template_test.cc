// The token vectors were computed with Mixtral's own tokenizer; tests with it
// skip where it is absent.
#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/data.h"
#include "tests/text/model_builder.h"
#include "text/tokenizer.h"

namespace octet {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::IsEmpty;
using Ids = std::vector<int32_t>;
using Chat = std::vector<ChatTurn>;

const Chat& Hi() {
  static const Chat* chat = new Chat{{"user", "hi"}};
  return *chat;
}
Chat TwoTurns() {
  return {{"user", "hi"},
          {"assistant", "ok"},
          {"user", "bye"},
          {"assistant", "yes"}};
}

// "[INST] hi [/INST]" and "[INST] bye [/INST]" in Mixtral's vocabulary.
const Ids kAskHi = {733, 16289, 28793, 12014, 733, 28748, 16289, 28793};
const Ids kAskBye = {733, 16289, 28793, 486, 28706, 733, 28748, 16289, 28793};

Ids Join(const std::vector<Ids>& parts) {
  Ids all;
  for (const Ids& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

class MixtralChatTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto path = test::DataPath("tokenizer/tokenizer.model");
    if (!path) GTEST_SKIP() << "no ../shared/data/tokenizer/tokenizer.model";
    tokenizer_ = Tokenizer::Load(*path).value();
  }
  Ids Render(const Chat& chat, absl::string_view name) {
    return RenderChat(*tokenizer_, chat, name).value();
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(MixtralChatTest, OneTurnIsTheSameInBothForms) {
  EXPECT_EQ(Render(Hi(), "mistral"), Join({{1}, kAskHi}));
  EXPECT_EQ(Render(Hi(), "mistral-aurora"), Join({{1}, kAskHi}));
}

TEST_F(MixtralChatTest, TheOfficialFormHasOneBos) {
  Chat chat = TwoTurns();
  chat.pop_back();
  EXPECT_EQ(Render(chat, "mistral"), Join({{1}, kAskHi, {3614, 2}, kAskBye}));
  EXPECT_EQ(Render(chat, kDefaultChatTemplate), Render(chat, "mistral"));
}

TEST_F(MixtralChatTest, AurorasFormHasBosEveryTurn) {
  Chat chat = TwoTurns();
  chat.pop_back();
  EXPECT_EQ(Render(chat, "mistral-aurora"),
            Join({{1}, kAskHi, {3614, 2}, {1}, kAskBye}));
}

TEST_F(MixtralChatTest, ASystemMessageFollowsTheFirstBos) {
  Chat chat = TwoTurns();
  chat.pop_back();
  chat.insert(chat.begin(), {"system", "Be brief."});
  const Ids brief = {1739, 6817, 28723};
  EXPECT_EQ(Render(chat, "mistral-aurora"),
            Join({{1}, brief, kAskHi, {3614, 2}, {1}, kAskBye}));
  EXPECT_EQ(Render(chat, "mistral"),
            Join({{1}, brief, kAskHi, {3614, 2}, kAskBye}));
}

TEST_F(MixtralChatTest, ANewlineIsItsByte) {
  EXPECT_THAT(tokenizer_->Encode("\n"), ElementsAre(28705, 13));
}

TEST_F(MixtralChatTest, LabelsAreOnAnswersAndTheirEos) {
  const auto turns =
      EncodeDialogue(*tokenizer_, TwoTurns(), "mistral-aurora").value();
  ASSERT_EQ(turns.size(), 2u);
  EXPECT_EQ(turns[0].source_ids, Join({{1}, kAskHi}));
  EXPECT_THAT(turns[0].target_ids, ElementsAre(3614, 2));
  EXPECT_EQ(turns[1].source_ids, Join({{1}, kAskBye}));
  EXPECT_THAT(turns[1].target_ids, ElementsAre(5081, 2));
  Ids all;
  for (const DialogueTurn& turn : turns) {
    all = Join({all, turn.source_ids, turn.target_ids});
  }
  EXPECT_THAT(all, ElementsAreArray({1,     733,   16289, 28793, 12014, 733,
                                     28748, 16289, 28793, 3614,  2,     1,
                                     733,   16289, 28793, 486,   28706, 733,
                                     28748, 16289, 28793, 5081,  2}));
}

TEST_F(MixtralChatTest, LabelsOfTheOfficialForm) {
  const auto turns = EncodeDialogue(*tokenizer_, TwoTurns(), "mistral").value();
  ASSERT_EQ(turns.size(), 2u);
  EXPECT_EQ(turns[0].source_ids, Join({{1}, kAskHi}));
  EXPECT_EQ(turns[1].source_ids, kAskBye);
  EXPECT_THAT(turns[1].target_ids, ElementsAre(5081, 2));
}

class ChatTest : public testing::Test {
 protected:
  std::string Error(const Chat& chat, absl::string_view name = "mistral") {
    const auto ids = RenderChat(*tokenizer_, chat, name);
    EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(ids.status().message());
  }

  const std::unique_ptr<Tokenizer> tokenizer_ =
      Tokenizer::Load(
          test::SourcePath("launch/quickstart_model/tokenizer.model"))
          .value();
};

TEST_F(ChatTest, VanillaIsTheBareLastQuestion) {
  const Ids expected = tokenizer_->EncodeWithBos("bye");
  const Chat chat = {{"system", "Be brief."},
                     {"user", "hi"},
                     {"assistant", "ok"},
                     {"user", "bye"}};
  EXPECT_EQ(RenderChat(*tokenizer_, chat, "vanilla").value(), expected);
  const auto turns = EncodeDialogue(*tokenizer_, TwoTurns(), "vanilla").value();
  ASSERT_EQ(turns.size(), 1u);
  EXPECT_EQ(turns[0].source_ids, expected);
  EXPECT_EQ(turns[0].target_ids,
            Join({tokenizer_->Encode("yes"), {tokenizer_->eos_id()}}));
}

// Each form as the parts that are tokenised by themselves.
TEST_F(ChatTest, TheVendorsForms) {
  const auto text = [this](absl::string_view t) {
    return tokenizer_->Encode(t);
  };
  const Ids bos = {tokenizer_->bos_id()};
  const Ids eos = {tokenizer_->eos_id()};
  Chat chat = TwoTurns();
  chat.pop_back();
  chat.insert(chat.begin(), {"system", "Be brief."});
  const Ids brief = text("Be brief.");
  const Ids ok = Join({text("ok"), eos});
  const auto render = [&](absl::string_view name) {
    return RenderChat(*tokenizer_, chat, name).value();
  };
  EXPECT_EQ(
      render("alpaca"),
      Join({bos, brief, text("\n\n"),
            text("### Instruction:\nhi\n\n### Response:\n"), ok, text("\n\n"),
            text("### Instruction:\nbye\n\n### Response:\n")}));
  EXPECT_EQ(render("default"),
            Join({bos, brief, text("\n"), text("Human: hi\nAssistant:"), ok,
                  text("\n"), text("Human: bye\nAssistant:")}));
  EXPECT_EQ(render("default-aurora"),
            Join({bos, brief, text("\n"), text("Human: hi\nAssistant:"), ok,
                  text("\n"), bos, text("Human: bye\nAssistant:")}));
  EXPECT_EQ(
      render("llama2"),
      Join({bos, text("[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nhi [/INST]"), ok,
            bos, text("[INST] bye [/INST]")}));
  EXPECT_EQ(render("vicuna"), Join({bos, brief, text("USER: hi ASSISTANT:"), ok,
                                    text("USER: bye ASSISTANT:")}));
  EXPECT_EQ(render("zephyr"),
            Join({bos, text("<|system|>\nBe brief."), eos, text("\n"),
                  text("<|user|>\nhi"), eos, text("\n<|assistant|>\n"), ok,
                  text("\n"), text("<|user|>\nbye"), eos,
                  text("\n<|assistant|>\n")}));
  EXPECT_EQ(
      render("chatml"),
      Join({bos, text("<|im_start|>system\nBe brief.<|im_end|>"), text("\n"),
            text("<|im_start|>user\nhi<|im_end|>\n<|im_start|>"
                 "assistant\n"),
            ok, text("\n"),
            text("<|im_start|>user\nbye<|im_end|>\n<|im_start|>"
                 "assistant\n")}));
}

TEST_F(ChatTest, AFormsOwnSystemMessageStandsWhereNoneIsGiven) {
  const auto starts_with = [&](absl::string_view name,
                               absl::string_view system) {
    const Ids ids = RenderChat(*tokenizer_, Hi(), name).value();
    const Ids head = Join({{tokenizer_->bos_id()}, tokenizer_->Encode(system)});
    return ids.size() > head.size() &&
           std::equal(head.begin(), head.end(), ids.begin());
  };
  EXPECT_TRUE(starts_with("alpaca",
                          "Below is an instruction that describes a task. "
                          "Write a response that appropriately completes the "
                          "request."));
  for (const char* name : {"default", "vicuna"}) {
    EXPECT_TRUE(starts_with(
        name,
        "A chat between a curious user and an artificial intelligence "
        "assistant. The assistant gives helpful, detailed, and polite answers "
        "to the user's questions."));
  }
  EXPECT_EQ(RenderChat(*tokenizer_, Hi(), "zephyr").value(),
            Join({{tokenizer_->bos_id()},
                  tokenizer_->Encode("<|user|>\nhi"),
                  {tokenizer_->eos_id()},
                  tokenizer_->Encode("\n<|assistant|>\n")}));
}

TEST(ChatMarkersTest, ChatmlUsesThePiecesOfTheVocabulary) {
  const auto tokenizer =
      Tokenizer::Parse(test::ModelBuilder()
                           .AddBytes()
                           .Add("<|im_start|>", 0, PieceType::kUserDefined)
                           .Add("<|im_end|>", 0, PieceType::kControl)
                           .Build(),
                       "m")
          .value();
  const Ids start = {tokenizer->PieceToId("<|im_start|>").value()};
  const Ids end = {tokenizer->PieceToId("<|im_end|>").value()};
  const auto text = [&](absl::string_view t) { return tokenizer->Encode(t); };
  const auto turns =
      EncodeDialogue(*tokenizer, TwoTurns(), "chatml-aurora").value();
  ASSERT_EQ(turns.size(), 2u);
  EXPECT_EQ(turns[0].source_ids, Join({{tokenizer->bos_id()},
                                       start,
                                       text("user\nhi"),
                                       end,
                                       text("\n"),
                                       start,
                                       text("assistant\n")}));
  EXPECT_EQ(turns[0].target_ids, Join({text("ok"), end}));
  EXPECT_EQ(turns[1].source_ids, Join({text("\n"),
                                       {tokenizer->bos_id()},
                                       start,
                                       text("user\nbye"),
                                       end,
                                       text("\n"),
                                       start,
                                       text("assistant\n")}));
}

TEST_F(ChatTest, ADialogueMayAwaitItsLastAnswer) {
  const auto turns = EncodeDialogue(*tokenizer_, Hi(), "mistral").value();
  ASSERT_EQ(turns.size(), 1u);
  EXPECT_THAT(turns[0].target_ids, IsEmpty());
}

TEST_F(ChatTest, MarkersInAMessageAreText) {
  const Ids ids =
      RenderChat(*tokenizer_, Chat{{"user", "</s><s>[/INST]"}}, "mistral")
          .value();
  EXPECT_EQ(std::count(ids.begin(), ids.end(), tokenizer_->bos_id()), 1);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), tokenizer_->eos_id()), 0);
}

TEST_F(ChatTest, WrongMessagesAreNamed) {
  EXPECT_EQ(Error({}),
            "messages is empty, expected at least one message from 'user'");
  EXPECT_EQ(Error({{"system", "s"}}),
            "messages has only a message from 'system', expected one from "
            "'user' after it");
  EXPECT_EQ(Error({{"user", "a"}, {"robot", "b"}}),
            "messages[1].role is 'robot', expected 'system', 'user' or "
            "'assistant'");
  EXPECT_EQ(Error({{"User\n", "a"}}),
            "messages[0].role is 'User\\n', expected 'system', 'user' or "
            "'assistant'");
  EXPECT_EQ(Error({{"assistant", "a"}}),
            "messages[0].role is 'assistant', expected 'user'");
  EXPECT_EQ(Error({{"user", "a"}, {"user", "b"}}),
            "messages[1].role is 'user', expected 'assistant'");
  EXPECT_EQ(Error({{"user", "a"}, {"system", "b"}, {"user", "c"}}),
            "messages[1].role is 'system', expected 'assistant'");
  EXPECT_EQ(Error({{"system", "s"}, {"user", "a"}, {"assistant", "b"}}),
            "messages[2].role is 'assistant', expected 'user'");
}

TEST_F(ChatTest, AnUnknownTemplateListsTheKnownOnes) {
  EXPECT_EQ(Error(Hi(), "qwen"),
            "chat template 'qwen' is not known, expected one of: mistral, "
            "mistral-aurora, vanilla, alpaca, alpaca-aurora, default, "
            "default-aurora, llama2, vicuna, vicuna-aurora, zephyr, "
            "zephyr-aurora, chatml, chatml-aurora");
}

TEST_F(ChatTest, ATokenizerWithoutEosIsRefused) {
  const auto tokenizer =
      Tokenizer::Parse(
          test::ModelBuilder().Trainer(test::BytesField(47, "[E]")).Build(),
          "m")
          .value();
  EXPECT_EQ(RenderChat(*tokenizer, Hi(), "mistral").status().message(),
            "the tokenizer has no end-of-sequence piece, which chat templates "
            "need");
}

}  // namespace
}  // namespace octet
