#include "text/incremental_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "tests/support/data.h"
#include "tests/text/model_builder.h"
#include "tests/text/random_text.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace octet {
namespace {

using testing::ElementsAre;

std::unique_ptr<Tokenizer> Quickstart() {
  return Tokenizer::Load(
             test::SourcePath("launch/quickstart_model/tokenizer.model"))
      .value();
}

// The result of each push, and of Finish.
std::vector<std::string> PushAll(IncrementalDecoder decoder,
                                 const std::vector<int32_t>& ids) {
  std::vector<std::string> parts;
  for (const int32_t id : ids) parts.push_back(decoder.Push(id).value());
  parts.push_back(decoder.Finish());
  return parts;
}

int32_t Byte(int value) { return 3 + value; }

TEST(IncrementalDecoderTest, HoldsACharacterBackUntilItIsWhole) {
  const auto tokenizer = Quickstart();
  EXPECT_THAT(PushAll(IncrementalDecoder(*tokenizer),
                      {Byte(0xF0), Byte(0x9F), Byte(0x98), Byte(0x80)}),
              ElementsAre("", "", "", "\xF0\x9F\x98\x80", ""));
}

TEST(IncrementalDecoderTest, BrokenBytesBecomeReplacementCharacters) {
  const auto tokenizer = Quickstart();
  const std::string bad = "\xEF\xBF\xBD";
  EXPECT_THAT(PushAll(IncrementalDecoder(*tokenizer),
                      {Byte(0xF0), Byte(0x9F), Byte('A'), Byte(0xE4)}),
              ElementsAre("", "", bad + bad + "A", "", bad));
  EXPECT_THAT(PushAll(IncrementalDecoder(*tokenizer), {Byte(0x80), Byte(0xFF)}),
              ElementsAre(bad, bad, ""));
  // A control piece between two halves of a character parts them.
  EXPECT_THAT(PushAll(IncrementalDecoder(*tokenizer),
                      {Byte(0xC3), tokenizer->eos_id(), Byte(0xA9)}),
              ElementsAre("", bad, bad, ""));
}

TEST(IncrementalDecoderTest, OnlyTheFirstSpaceGoes) {
  const auto tokenizer = Quickstart();
  const int32_t the = tokenizer->PieceToId("\xE2\x96\x81the").value();
  const int32_t bos = tokenizer->bos_id();
  EXPECT_THAT(PushAll(IncrementalDecoder(*tokenizer), {bos, the, the}),
              ElementsAre("", "the", " the", ""));
  EXPECT_THAT(PushAll(IncrementalDecoder(*tokenizer, {.skip_special = true,
                                                      .at_start = false}),
                      {the, the}),
              ElementsAre(" the", " the", ""));
}

TEST(IncrementalDecoderTest, ShowsSpecialPiecesWhenAsked) {
  const auto tokenizer = Quickstart();
  const int32_t the = tokenizer->PieceToId("\xE2\x96\x81the").value();
  EXPECT_THAT(PushAll(IncrementalDecoder(*tokenizer, {.skip_special = false,
                                                      .at_start = true}),
                      {1, the, 2}),
              ElementsAre("<s>", " the", "</s>", ""));
}

TEST(IncrementalDecoderTest, AnIdOutOfRangeChangesNothing) {
  const auto tokenizer = Quickstart();
  IncrementalDecoder decoder(*tokenizer);
  EXPECT_EQ(decoder.Push(Byte(0xC3)).value(), "");
  EXPECT_EQ(decoder.Push(8000).status().message(),
            "token id 8000 is out of range, expected 0 to 7999");
  EXPECT_EQ(decoder.Push(Byte(0xA9)).value(), "é");
}

TEST(IncrementalDecoderTest, IsAsNewAfterFinish) {
  const auto tokenizer = Quickstart();
  const int32_t the = tokenizer->PieceToId("\xE2\x96\x81the").value();
  IncrementalDecoder decoder(*tokenizer);
  EXPECT_EQ(decoder.Push(the).value(), "the");
  EXPECT_EQ(decoder.Push(Byte(0xC3)).value(), "");
  EXPECT_EQ(decoder.Finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(decoder.Push(the).value(), "the");
}

// Every kind of whitespace rule, on random ids with many byte pieces.
class DecoderPropertyTest : public testing::TestWithParam<int> {};

TEST_P(DecoderPropertyTest, PartsAreWholeCharactersAndMakeTheWholeText) {
  test::ModelBuilder builder;
  builder.AddBytes().Normalizer(test::VarintField(3, GetParam() & 1));
  builder.Normalizer(test::VarintField(4, GetParam() >> 1));
  for (const char* piece : {"a", "\xE2\x96\x81", "\xE2\x96\x81\xE2\x96\x81",
                            "\xE2\x96\x81z", "你", " "}) {
    builder.Add(piece, 0);
  }
  const auto tokenizer = Tokenizer::Parse(builder.Build(), "m").value();
  std::mt19937 random(17);
  for (int round = 0; round < 5000; ++round) {
    std::vector<int32_t> ids;
    for (size_t left = random() % 12; left > 0; --left) {
      const bool any = random() % 2 == 0;
      ids.push_back(any ? static_cast<int32_t>(random() % 265)
                        : static_cast<int32_t>(259 + random() % 6));
      if (random() % 4 == 0) {  // a character as its bytes, at times cut off
        std::string bytes = test::RandomUnicode(random, 1);
        bytes.resize(random() % 4 == 0 ? bytes.size() / 2 : bytes.size());
        for (const char byte : bytes) {
          ids.push_back(Byte(static_cast<unsigned char>(byte)));
        }
      }
    }
    std::string whole;
    for (const std::string& part :
         PushAll(IncrementalDecoder(*tokenizer), ids)) {
      ASSERT_TRUE(IsValidUtf8(part)) << absl::CHexEscape(part);
      whole += part;
    }
    ASSERT_EQ(whole, tokenizer->Decode(ids).value())
        << testing::PrintToString(ids);
  }
}

INSTANTIATE_TEST_SUITE_P(WhitespaceRules, DecoderPropertyTest,
                         testing::Range(0, 4));

TEST(IncrementalDecoderTest, TextThatIsEncodedStreamsBack) {
  const auto tokenizer = Quickstart();
  const std::string text =
      " The moon, 明月几时有, 龘靐齉, 👩‍👩‍👧‍👦 "
      "and\ttabs\n "
      " "
      "two "
      "spaces ";
  std::string whole;
  for (const std::string& part :
       PushAll(IncrementalDecoder(*tokenizer), tokenizer->Encode(text))) {
    EXPECT_TRUE(IsValidUtf8(part));
    whole += part;
  }
  EXPECT_EQ(whole, text);
}

}  // namespace
}  // namespace octet
