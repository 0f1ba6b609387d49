// Token and label vectors, exactly. Those of Mixtral's own tokenizer skip
// where it is absent.
#include "client/data/document_encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/client/data/files.h"
#include "text/tokenizer.h"

namespace octet {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::IsEmpty;
using Ids = std::vector<int32_t>;

constexpr int32_t kNo = kIgnoredLabel;

Document Dialogue(std::vector<ChatTurn> messages) {
  Document document;
  document.messages = std::move(messages);
  return document;
}
Document TwoTurns() {
  return Dialogue({{"user", "hi"},
                   {"assistant", "ok"},
                   {"user", "bye"},
                   {"assistant", "yes"}});
}
Document Text(const char* text) {
  Document document;
  document.text = text;
  return document;
}

class MixtralEncoderTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto path = test::DataPath("tokenizer/tokenizer.model");
    if (!path) GTEST_SKIP() << "no ../shared/data/tokenizer/tokenizer.model";
    tokenizer_ = Tokenizer::Load(*path).value();
  }
  EncodedDocument Encode(const Document& document, EncoderOptions options) {
    return DocumentEncoder::Create(std::move(options), tokenizer_.get())
        .value()
        .Encode(document)
        .value();
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(MixtralEncoderTest, AurorasCheckVector) {
  EncoderOptions options;
  options.chat_template = "mistral-aurora";
  const EncodedDocument encoded = Encode(TwoTurns(), options);
  EXPECT_THAT(
      encoded.example.token_ids,
      ElementsAreArray({1,     733,  16289, 28793, 12014, 733,   28748, 16289,
                        28793, 3614, 2,     1,     733,   16289, 28793, 486,
                        28706, 733,  28748, 16289, 28793, 5081,  2}));
  EXPECT_THAT(encoded.example.labels,
              ElementsAreArray({kNo, kNo,  kNo, kNo, kNo, kNo,  kNo, kNo,
                                kNo, 3614, 2,   kNo, kNo, kNo,  kNo, kNo,
                                kNo, kNo,  kNo, kNo, kNo, 5081, 2}));
  EXPECT_EQ(encoded.outcome, EncodeOutcome::kWhole);
}

TEST_F(MixtralEncoderTest, AurorasCheckVectorWithASystemMessage) {
  EncoderOptions options;
  options.chat_template = "mistral-aurora";
  Document document = TwoTurns();
  document.messages.insert(document.messages.begin(), {"system", "Be brief."});
  const EncodedDocument encoded = Encode(document, options);
  EXPECT_THAT(encoded.example.token_ids,
              ElementsAreArray({1,     1739,  6817,  28723, 733,   16289, 28793,
                                12014, 733,   28748, 16289, 28793, 3614,  2,
                                1,     733,   16289, 28793, 486,   28706, 733,
                                28748, 16289, 28793, 5081,  2}));
  Ids labels(26, kNo);
  labels[12] = 3614;
  labels[13] = 2;
  labels[24] = 5081;
  labels[25] = 2;
  EXPECT_EQ(encoded.example.labels, labels);
}

TEST_F(MixtralEncoderTest, TheOfficialFormHasOneBos) {
  const EncodedDocument encoded = Encode(TwoTurns(), EncoderOptions());
  EXPECT_THAT(
      encoded.example.token_ids,
      ElementsAreArray({1,     733,   16289, 28793, 12014, 733,   28748, 16289,
                        28793, 3614,  2,     733,   16289, 28793, 486,   28706,
                        733,   28748, 16289, 28793, 5081,  2}));
}

TEST_F(MixtralEncoderTest, ChineseMixtralsCheckVector) {
  EncoderOptions options;
  options.cutoff_rule = CutoffRule::kDropLongSource;
  const Document hi = Dialogue({{"user", "hi"}, {"assistant", "ok"}});
  const EncodedDocument encoded = Encode(hi, options);
  EXPECT_THAT(encoded.example.token_ids,
              ElementsAreArray({1, 733, 16289, 28793, 12014, 733, 28748, 16289,
                                28793, 3614, 2}));
  EXPECT_THAT(
      encoded.example.labels,
      ElementsAreArray({kNo, kNo, kNo, kNo, kNo, kNo, kNo, kNo, kNo, 3614, 2}));

  options.cutoff_len = 10;  // the source has 9 tokens
  const EncodedDocument cut = Encode(hi, options);
  EXPECT_EQ(cut.outcome, EncodeOutcome::kTruncated);
  EXPECT_EQ(cut.example.token_ids.size(), 10u);
  EXPECT_EQ(cut.example.labels.back(), 3614);

  options.cutoff_len = 9;
  const EncodedDocument dropped = Encode(hi, options);
  EXPECT_EQ(dropped.outcome, EncodeOutcome::kTooLong);
  EXPECT_THAT(dropped.example.token_ids, IsEmpty());
}

TEST_F(MixtralEncoderTest, TextForPretraining) {
  EncoderOptions options;
  options.stage = Stage::kPretrain;
  EncodedDocument encoded = Encode(Text("hi\n"), options);
  EXPECT_THAT(encoded.example.token_ids, ElementsAre(1, 12014, 13, 2));
  EXPECT_THAT(encoded.example.labels, ElementsAre(1, 12014, 13, 2));
  EXPECT_THAT(Encode(Text(""), options).example.token_ids, ElementsAre(1, 2));
  options.ignore_eos = true;
  encoded = Encode(Text("hi\n"), options);
  EXPECT_THAT(encoded.example.token_ids, ElementsAre(1, 12014, 13, 2));
  EXPECT_THAT(encoded.example.labels, ElementsAre(1, 12014, 13, kNo));
}

class EncoderTest : public testing::Test {
 protected:
  // One exchange whose source has 9 tokens and whose target has 12.
  EncoderTest() {
    dialogue_ = Dialogue({{"user", "aa"}, {"assistant", "b"}});
    turn_ =
        EncodeDialogue(*tokenizer_, dialogue_.messages, "mistral").value()[0];
  }
  EncodedDocument Encode(const Document& document, EncoderOptions options) {
    return DocumentEncoder::Create(std::move(options), tokenizer_.get())
        .value()
        .Encode(document)
        .value();
  }
  std::string CreateError(EncoderOptions options) {
    return std::string(
        DocumentEncoder::Create(std::move(options), tokenizer_.get())
            .status()
            .message());
  }

  const std::unique_ptr<Tokenizer> tokenizer_ = test::SmallTokenizer();
  Document dialogue_;
  DialogueTurn turn_;
};

// The rule written down once more, for exchanges of every proportion.
TEST_F(EncoderTest, ProportionalCut) {
  for (const int answer_words : {1, 3, 9, 40}) {
    for (const int question_words : {1, 5, 30}) {
      std::string question, answer;
      for (int i = 0; i < question_words; ++i) question += " why";
      for (int i = 0; i < answer_words; ++i) answer += " so";
      const Document document =
          Dialogue({{"user", question}, {"assistant", answer}});
      const DialogueTurn turn =
          EncodeDialogue(*tokenizer_, document.messages, "mistral").value()[0];
      const int s = turn.source_ids.size();
      const int t = turn.target_ids.size();
      for (const int cutoff : {2, 7, 16, 33, 1000}) {
        for (const int reserved : {1, 2}) {
          EncoderOptions options;
          options.cutoff_len = cutoff;
          options.reserved_label_len = reserved;
          const int max_target = std::max(
              static_cast<int>(cutoff * (double{1} * t / (s + t))), reserved);
          const int kept_source = std::min(s, cutoff - max_target);
          const int kept_target = std::min(t, max_target);
          Ids ids(turn.source_ids.begin(),
                  turn.source_ids.begin() + kept_source);
          Ids labels(kept_source, kNo);
          for (Ids* out : {&ids, &labels}) {
            out->insert(out->end(), turn.target_ids.begin(),
                        turn.target_ids.begin() + kept_target);
          }
          const EncodedDocument encoded = Encode(document, options);
          EXPECT_EQ(encoded.example.token_ids, ids);
          EXPECT_EQ(encoded.example.labels, labels);
          EXPECT_EQ(encoded.outcome == EncodeOutcome::kTruncated,
                    kept_source < s || kept_target < t);
        }
      }
    }
  }
}

TEST_F(EncoderTest, TheWholeDialogueIsCutAtTheEnd) {
  EncoderOptions options;
  const Example whole = Encode(TwoTurns(), options).example;
  const DialogueTurn first =
      EncodeDialogue(*tokenizer_, TwoTurns().messages, "mistral").value()[0];
  // Long enough for each exchange, too short for both.
  options.cutoff_len = static_cast<int32_t>(whole.token_ids.size() - 1);
  ASSERT_GT(options.cutoff_len, static_cast<int32_t>(first.source_ids.size()));
  const EncodedDocument cut = Encode(TwoTurns(), options);
  EXPECT_EQ(cut.outcome, EncodeOutcome::kTruncated);
  EXPECT_EQ(cut.example.token_ids,
            Ids(whole.token_ids.begin(), whole.token_ids.end() - 1));
  EXPECT_EQ(cut.example.labels,
            Ids(whole.labels.begin(), whole.labels.end() - 1));
}

TEST_F(EncoderTest, QuestionsAreLearntWhenAskedFor) {
  EncoderOptions options;
  options.train_on_prompt = true;
  const Example example = Encode(TwoTurns(), options).example;
  EXPECT_EQ(example.labels, example.token_ids);
}

TEST_F(EncoderTest, PackedDocumentsAreWhole) {
  EncoderOptions options;
  options.cutoff_len = 4;
  options.cutoff_rule = CutoffRule::kKeep;
  const EncodedDocument encoded = Encode(dialogue_, options);
  EXPECT_EQ(encoded.outcome, EncodeOutcome::kWhole);
  EXPECT_EQ(encoded.example.token_ids.size(),
            turn_.source_ids.size() + turn_.target_ids.size());
}

TEST_F(EncoderTest, AnEmptyRowHasNoExample) {
  const EncodedDocument encoded = Encode(Document(), EncoderOptions());
  EXPECT_EQ(encoded.outcome, EncodeOutcome::kEmpty);
  EXPECT_THAT(encoded.example.token_ids, IsEmpty());
}

TEST_F(EncoderTest, OptionsThatAreWrong) {
  EncoderOptions options;
  options.cutoff_len = 1;
  EXPECT_EQ(CreateError(options), "cutoff_len is 1, expected at least 2");
  options.cutoff_len = 8;
  options.reserved_label_len = 9;
  EXPECT_EQ(CreateError(options),
            "reserved_label_len is 9, expected 1 to cutoff_len (8)");
  options.reserved_label_len = 0;
  EXPECT_EQ(CreateError(options),
            "reserved_label_len is 0, expected 1 to cutoff_len (8)");
  options = EncoderOptions();
  options.chat_template = "none";
  EXPECT_THAT(CreateError(options),
              testing::StartsWith("chat template 'none' is not known"));
  const auto no_pieces = Tokenizer::WithoutPieces();
  EXPECT_EQ(DocumentEncoder::Create(EncoderOptions(), no_pieces.get())
                .status()
                .message(),
            "the tokenizer has no beginning-of-sequence piece, which chat "
            "templates need");
}

}  // namespace
}  // namespace octet
