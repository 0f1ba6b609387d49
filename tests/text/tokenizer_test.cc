#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/support/data.h"
#include "tests/text/model_builder.h"
#include "tests/text/random_text.h"
#include "tests/text/spm_oracle.h"

namespace octet {
namespace {

using test::ModelBuilder;
using testing::ElementsAre;
using testing::IsEmpty;

// A model of a few letters: ids 3.. are the pieces added here.
ModelBuilder Letters() {
  return ModelBuilder()
      .Add("a", -10)             // 3
      .Add("b", -11)             // 4
      .Add("\xE2\x96\x81", -12)  // 5
      .Add("ab", -1)             // 6
      .Add(
          "\xE2\x96\x81"  // 7
          "ab",
          -2);
}

std::unique_ptr<Tokenizer> Make(const ModelBuilder& builder) {
  return Tokenizer::Parse(builder.Build(), "test.model").value();
}

std::unique_ptr<Tokenizer> Quickstart() {
  return Tokenizer::Load(
             test::SourcePath("launch/quickstart_model/tokenizer.model"))
      .value();
}

TEST(TokenizerTest, MergesTheHighestScoreFirst) {
  const auto tokenizer = Make(Letters());
  EXPECT_THAT(tokenizer->Encode("ab"), ElementsAre(7));
  EXPECT_THAT(tokenizer->Encode("abab"), ElementsAre(7, 6));
  EXPECT_THAT(tokenizer->Encode("ba"), ElementsAre(5, 4, 3));
  EXPECT_THAT(tokenizer->Encode(""), IsEmpty());
  EXPECT_THAT(tokenizer->EncodeWithBos("ab"), ElementsAre(1, 7));
  EXPECT_THAT(tokenizer->EncodeWithBos(""), ElementsAre(1));
}

TEST(TokenizerTest, MergesTheLeftmostOfEqualScores) {
  const auto tokenizer = Make(ModelBuilder().Add("aa", -1).Add("a", -2));
  EXPECT_THAT(tokenizer->Encode("aaa"), ElementsAre(0, 3, 4));  // space unknown
}

TEST(TokenizerTest, APieceIsMadeFromACharacterThatIsNone) {
  const auto tokenizer = Make(ModelBuilder().Add("xy", -1).Add(" ", -2));
  EXPECT_THAT(tokenizer->Encode("xy"), ElementsAre(0, 3));
  EXPECT_THAT(tokenizer->Encode("yx"), ElementsAre(0));
}

TEST(TokenizerTest, ARunOfUnknownCharactersIsOneUnknown) {
  const auto tokenizer = Make(Letters());
  EXPECT_THAT(tokenizer->Encode("zzzazz"), ElementsAre(5, 0, 3, 0));
  EXPECT_EQ(tokenizer->Decode({5, 0, 3, 0}).value(), " ⁇ a ⁇ ");
}

TEST(TokenizerTest, UnknownCharactersFallBackToBytes) {
  const auto tokenizer = Make(Letters().AddBytes());
  const int32_t byte0 = tokenizer->PieceToId("<0x00>").value();
  EXPECT_THAT(tokenizer->Encode("é"),
              ElementsAre(5, byte0 + 0xC3, byte0 + 0xA9));
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode("é")).value(), "é");
  EXPECT_EQ(tokenizer->Decode({byte0 + 0xC3}).value(), "\xEF\xBF\xBD");
  EXPECT_EQ(tokenizer->Decode({byte0 + 0xC3, 3, byte0 + 0xA9}).value(),
            "\xEF\xBF\xBD"
            "a"
            "\xEF\xBF\xBD");
}

TEST(TokenizerTest, UserDefinedPiecesAreMatchedFirstAndNeverMerged) {
  const auto tokenizer = Make(Letters()
                                  .Add("ba", 0, PieceType::kUserDefined)   // 8
                                  .Add("bab", 0, PieceType::kUserDefined)  // 9
                                  .Add("aba", 5));                         // 10
  EXPECT_THAT(tokenizer->Encode("aba"), ElementsAre(5, 3, 8));
  EXPECT_THAT(tokenizer->Encode("abab"), ElementsAre(5, 3, 9));
}

TEST(TokenizerTest, UnusedPiecesAreCutAgain) {
  const auto tokenizer = Make(
      ModelBuilder().Add("a", -5).Add("b", -5).Add("c", -5).Add("ab", -1).Add(
          "abc", -2, PieceType::kUnused));
  EXPECT_THAT(tokenizer->Encode("abc"), ElementsAre(0, 6, 5));
}

TEST(TokenizerTest, ControlPiecesNeverComeFromText) {
  const auto tokenizer =
      Make(Letters().Add("<", -20).Add("s", -20).Add(">", -20).Add(
          "!", 0, PieceType::kControl));
  EXPECT_THAT(tokenizer->Encode("<s>"), ElementsAre(5, 8, 9, 10));
  EXPECT_THAT(tokenizer->Encode("!"), ElementsAre(5, 0));
  EXPECT_EQ(tokenizer->Decode({1, 7, 2}).value(), "ab");
}

TEST(TokenizerTest, OnlyTheDummyPrefixSpaceIsTakenAway) {
  const auto tokenizer = Make(Letters());
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(" ab  ab ")).value(),
            " ab  ab ");
  EXPECT_EQ(tokenizer->Decode({3, 7}).value(), "a ab");
}

TEST(TokenizerTest, KnowsItsPieces) {
  const auto tokenizer = Quickstart();
  EXPECT_EQ(tokenizer->vocab_size(), 8000);
  EXPECT_EQ(tokenizer->unk_id(), 0);
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_EQ(tokenizer->pad_id(), -1);
  EXPECT_EQ(tokenizer->IdToPiece(3).value(), "<0x00>");
  EXPECT_EQ(tokenizer->PieceToId("<0xFF>"), 258);
  EXPECT_EQ(tokenizer->PieceToId("no such piece"), std::nullopt);
  EXPECT_TRUE(tokenizer->IsControl(1));
  EXPECT_FALSE(tokenizer->IsControl(0));
  EXPECT_FALSE(tokenizer->IsControl(-1));
  EXPECT_TRUE(tokenizer->IsByte(258));
  EXPECT_FALSE(tokenizer->IsByte(259));
  EXPECT_FALSE(tokenizer->IsByte(8000));
}

TEST(TokenizerTest, IdsOutOfRangeAreNamed) {
  const auto tokenizer = Quickstart();
  for (const int32_t id : {-1, 8000, INT32_MAX, INT32_MIN}) {
    const std::string expected =
        absl::StrCat("token id ", id, " is out of range, expected 0 to 7999");
    EXPECT_EQ(tokenizer->Decode({5, id}).status().message(), expected);
    EXPECT_EQ(tokenizer->IdToPiece(id).status().message(), expected);
    EXPECT_EQ(tokenizer->CheckId(id).code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(TokenizerTest, ValidTextComesBack) {
  const auto tokenizer = Quickstart();
  std::mt19937 random(3);
  for (int i = 0; i < 2000; ++i) {
    const std::string text = i % 2 == 0
                                 ? test::RandomUnicode(random, random() % 80)
                                 : test::RandomWhitespace(random, i % 40);
    // U+2581 in a text cannot be told from a space.
    std::string expected;
    for (const absl::string_view part : absl::StrSplit(text, "\xE2\x96\x81")) {
      if (!expected.empty() || part.data() != text.data()) expected += ' ';
      expected += std::string(part);
    }
    ASSERT_EQ(tokenizer->Decode(tokenizer->Encode(text)).value(), expected);
  }
}

TEST(TokenizerTest, ALongRunOfOneCharacterTakesNoQuadraticTime) {
  const auto tokenizer = Quickstart();
  const std::string text(4 << 20, 'e');
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text)).value(), text);
}

TEST(TokenizerTest, IsSharedByThreads) {
  const auto tokenizer = Quickstart();
  const std::string text = "The same text, 同一段文字, in every thread.";
  const std::vector<int32_t> expected = tokenizer->Encode(text);
  std::vector<std::thread> threads;
  std::vector<int> num_equal(4, 0);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const bool equal = tokenizer->Encode(text) == expected &&
                           tokenizer->Decode(expected).value() == text;
        num_equal[t] += equal ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(num_equal, testing::Each(200));
}

TEST(TokenizerTest, FilesThatCannotBeReadAreNamed) {
  test::TempDir dir;
  const std::string missing = absl::StrCat(dir.path(), "/none.model");
  const absl::Status status = Tokenizer::Load(missing).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(
      status.message(),
      absl::StrCat(missing, ": cannot be read: No such file or directory"));
  const absl::Status directory = Tokenizer::Load(dir.path()).status();
  EXPECT_EQ(directory.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(
      std::string(directory.message()),
      testing::StartsWith(absl::StrCat(dir.path(), ": cannot be read: ")));
  const std::string empty = absl::StrCat(dir.path(), "/empty.model");
  test::WriteFile(empty, "");
  EXPECT_EQ(Tokenizer::Load(empty).status().message(),
            absl::StrCat(empty, ": is empty, expected a SentencePiece model"));
}

}  // namespace
}  // namespace octet
