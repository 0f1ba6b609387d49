// The tokenizer against spm_encode and spm_decode, run as separate programs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <ostream>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/support/data.h"
#include "tests/text/model_builder.h"
#include "tests/text/random_text.h"
#include "tests/text/spm_oracle.h"
#include "text/tokenizer.h"

namespace octet {
namespace {

using test::SpmOracle;

std::optional<std::string> ModelPath(absl::string_view name) {
  if (name == "mixtral") return test::DataPath("tokenizer/tokenizer.model");
  return test::SourcePath("launch/quickstart_model/tokenizer.model");
}

std::vector<std::string> HardLines(std::mt19937& random, size_t num_lines) {
  std::vector<std::string> lines = {"",
                                    " ",
                                    "  ",
                                    "a",
                                    " a",
                                    "a ",
                                    "a  b",
                                    "<s>",
                                    "</s>",
                                    "<unk>",
                                    "<0x41>",
                                    "\xE2\x96\x81",
                                    "\t",
                                    "\r",
                                    "\xC0",
                                    "\xE4\xB8",
                                    "\xED\xA0\x80",
                                    "\xF4\x90\x80\x80",
                                    "龘靐齉",
                                    "👩‍👩‍👧‍👦",
                                    "\x01",
                                    "\xEF\xBF\xBD",
                                    "\xEF\xBB\xBF",
                                    "[INST] hi [/INST]",
                                    std::string("a\0b", 3),
                                    std::string(5000, ' '),
                                    std::string(5000, 'a'),
                                    std::string(3000, '='),
                                    "1234567890"};
  for (size_t i = 0; i < num_lines; ++i) {
    const size_t length = random() % 120;
    lines.push_back(test::RandomBytes(random, length));
    lines.push_back(test::RandomUnicode(random, length));
    lines.push_back(test::RandomWhitespace(random, length));
  }
  return lines;
}

// Ids that a line-based program can take and give.
std::vector<std::vector<int32_t>> RandomIds(const Tokenizer& tokenizer,
                                            std::mt19937& random,
                                            size_t num_sequences) {
  std::vector<int32_t> special;
  std::vector<int32_t> plain;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const bool is_byte = tokenizer.IsByte(id);
    if (is_byte && tokenizer.ByteValue(id) == '\n') continue;
    if (absl::StrContains(tokenizer.Surface(id), "\n")) continue;
    const bool leading = tokenizer.LeadingSpaceBytes(id) > 0 && id < 2000;
    const bool rare = is_byte || leading || tokenizer.IsControl(id) ||
                      id == tokenizer.unk_id();
    (rare ? special : plain).push_back(id);
  }
  std::vector<std::vector<int32_t>> sequences;
  for (size_t i = 0; i < num_sequences; ++i) {
    std::vector<int32_t>& ids = sequences.emplace_back();
    for (size_t left = 1 + random() % 20; left > 0; --left) {
      const auto& from = random() % 4 > 0 || plain.empty() ? special : plain;
      ids.push_back(from[random() % from.size()]);
    }
  }
  return sequences;
}

void ExpectSameIds(const Tokenizer& tokenizer, const SpmOracle& oracle,
                   const std::vector<std::string>& lines) {
  const std::vector<std::vector<int32_t>> expected = oracle.Encode(lines);
  for (size_t i = 0; i < lines.size(); ++i) {
    ASSERT_EQ(tokenizer.Encode(lines[i]), expected[i])
        << "line " << i << ": " << absl::CHexEscape(lines[i]);
  }
}

void ExpectSameText(const Tokenizer& tokenizer, const SpmOracle& oracle,
                    const std::vector<std::vector<int32_t>>& ids) {
  const std::vector<std::string> expected = oracle.Decode(ids);
  for (size_t i = 0; i < ids.size(); ++i) {
    const absl::StatusOr<std::string> text = tokenizer.Decode(ids[i]);
    ASSERT_TRUE(text.ok()) << text.status();
    ASSERT_EQ(*text, expected[i]) << testing::PrintToString(ids[i]);
  }
}

void ExpectLikeSpm(const std::string& model_path,
                   const std::vector<std::string>& extra_lines) {
  const auto tokenizer = Tokenizer::Load(model_path);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const SpmOracle oracle(model_path);
  std::mt19937 random(7);
  std::vector<std::string> lines = HardLines(random, 500);
  lines.insert(lines.end(), extra_lines.begin(), extra_lines.end());
  ExpectSameIds(**tokenizer, oracle, lines);
  ExpectSameText(**tokenizer, oracle, RandomIds(**tokenizer, random, 3000));
}

struct TextCase {
  const char* model;
  const char* file;
};

void PrintTo(const TextCase& text, std::ostream* out) {
  *out << text.model << " " << text.file;
}

class TextFileTest : public testing::TestWithParam<TextCase> {};

TEST_P(TextFileTest, EveryLineIsTokenisedLikeSpmAndComesBack) {
  if (const auto reason = test::WhyNoSpm()) GTEST_SKIP() << *reason;
  const auto model_path = ModelPath(GetParam().model);
  const auto text_path = test::DataPath(absl::StrCat("text/", GetParam().file));
  if (!model_path || !text_path) GTEST_SKIP() << "no ../shared/data";
  const auto tokenizer = Tokenizer::Load(*model_path);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const SpmOracle oracle(*model_path);
  const std::vector<std::string> lines = test::ReadLines(*text_path);
  ExpectSameIds(**tokenizer, oracle, lines);
  std::vector<std::string> texts;
  std::vector<std::vector<int32_t>> ids;
  for (const std::string& line : lines) {
    if (line.empty()) continue;
    texts.push_back(line);
    ids.push_back((*tokenizer)->Encode(line));
    ASSERT_EQ((*tokenizer)->Decode(ids.back()).value(), line);
  }
  EXPECT_EQ(oracle.Decode(ids), texts);
}

std::vector<TextCase> TextCases() {
  std::vector<TextCase> cases;
  for (const char* model : {"mixtral", "quickstart"}) {
    for (const char* file : {"en_brown.txt", "en_wiki.txt", "en_c4.jsonl",
                             "zh_song_ci.txt", "zh_tang_poems.txt"}) {
      cases.push_back({model, file});
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Texts, TextFileTest, testing::ValuesIn(TextCases()),
                         [](const auto& info) {
                           const std::string file = info.param.file;
                           return absl::StrCat(info.param.model, "_",
                                               file.substr(0, file.find('.')));
                         });

class HardTextTest : public testing::TestWithParam<const char*> {};

TEST_P(HardTextTest, IsLikeSpm) {
  if (const auto reason = test::WhyNoSpm()) GTEST_SKIP() << *reason;
  const auto model_path = ModelPath(GetParam());
  if (!model_path) GTEST_SKIP() << "no ../shared/data";
  ExpectLikeSpm(*model_path, {});
}

INSTANTIATE_TEST_SUITE_P(Models, HardTextTest,
                         testing::Values("mixtral", "quickstart"),
                         [](const auto& info) { return info.param; });

// Words over a small alphabet, so that a tiny vocabulary merges a lot.
std::vector<std::string> SmallWorld(std::mt19937& random, size_t num_lines) {
  constexpr const char* kUnits[] = {"a",  "b",  "ab", "ba",  "c",    " ",
                                    "  ", "你", "好", "<x>", "<xy>", "x"};
  std::vector<std::string> lines;
  for (size_t i = 0; i < num_lines; ++i) {
    std::string& line = lines.emplace_back();
    for (size_t left = 1 + random() % 40; left > 0; --left) {
      line += kUnits[random() % std::size(kUnits)];
    }
  }
  return lines;
}

struct TrainedCase {
  const char* name;
  const char* flags;
};

void PrintTo(const TrainedCase& trained, std::ostream* out) {
  *out << trained.flags;
}

class TrainedModelTest : public testing::TestWithParam<TrainedCase> {};

TEST_P(TrainedModelTest, IsLikeSpm) {
  if (const auto reason = test::WhyNoSpm()) GTEST_SKIP() << *reason;
  std::mt19937 random(11);
  const std::vector<std::string> corpus = SmallWorld(random, 400);
  test::TempDir dir;
  const std::string path = test::TrainModel(dir, GetParam().flags, corpus);
  ExpectLikeSpm(path, SmallWorld(random, 1000));
}

INSTANTIATE_TEST_SUITE_P(
    Flags, TrainedModelTest,
    testing::Values(
        TrainedCase{"plain", "--vocab_size=60"},
        TrainedCase{"keep_spaces",
                    "--vocab_size=60 --remove_extra_whitespaces=false"},
        TrainedCase{"no_dummy_prefix",
                    "--vocab_size=60 --add_dummy_prefix=false"},
        TrainedCase{"bare",
                    "--vocab_size=60 --add_dummy_prefix=false "
                    "--remove_extra_whitespaces=false"},
        TrainedCase{"bytes", "--vocab_size=330 --byte_fallback=true"},
        TrainedCase{"across_words",
                    "--vocab_size=120 --split_by_whitespace=false "
                    "--allow_whitespace_only_pieces=true "
                    "--remove_extra_whitespaces=false"},
        TrainedCase{"user_defined",
                    "--vocab_size=80 --user_defined_symbols='<x>,<xy>,ab,好'"},
        TrainedCase{"user_defined_bytes",
                    "--vocab_size=340 --byte_fallback=true "
                    "--remove_extra_whitespaces=false "
                    "--user_defined_symbols='<x>,<xy>,abba,▁▁'"},
        TrainedCase{"control",
                    "--vocab_size=80 --pad_id=3 "
                    "--control_symbols='<x>,<sys>'"},
        TrainedCase{"other_ids",
                    "--vocab_size=80 --unk_id=5 --bos_id=-1 --eos_id=0 "
                    "--pad_id=1 --unk_surface=? --unk_piece=[U]"}),
    [](const auto& info) { return info.param.name; });

// Trained models have no UNUSED pieces, so that these are written by hand, with
// scores that tie and pieces that can be made in several ways.
TEST(HandMadeModelTest, RandomPiecesOfAllTypesAreLikeSpm) {
  if (const auto reason = test::WhyNoSpm()) GTEST_SKIP() << *reason;
  std::mt19937 random(13);
  for (int round = 0; round < 12; ++round) {
    test::ModelBuilder builder;
    if (round % 2 == 0) builder.AddBytes();
    std::set<std::string> pieces;
    constexpr const char* kChars[] = {"a", "b", "c", "\xE2\x96\x81", "é"};
    while (pieces.size() < 60) {
      std::string piece;
      for (size_t left = 1 + random() % 5; left > 0; --left) {
        piece += kChars[random() % std::size(kChars)];
      }
      if (!pieces.insert(piece).second) continue;
      const size_t kind = random() % 8;
      const PieceType type = kind == 0   ? PieceType::kUserDefined
                             : kind <= 2 ? PieceType::kUnused
                                         : PieceType::kNormal;
      const bool rare = type == PieceType::kUserDefined && piece.size() < 3;
      builder.Add(piece, -static_cast<float>(random() % 6),
                  rare ? PieceType::kNormal : type);
    }
    test::TempDir dir;
    const std::string path = absl::StrCat(dir.path(), "/hand.model");
    test::WriteFile(path, builder.Build());
    std::vector<std::string> lines;
    constexpr const char* kText[] = {"a", "b", "c", " ", "é", "z"};
    for (int i = 0; i < 500; ++i) {
      std::string& line = lines.emplace_back();
      for (size_t left = random() % 60; left > 0; --left) {
        line += kText[random() % std::size(kText)];
      }
    }
    SCOPED_TRACE(round);
    ExpectLikeSpm(path, lines);
  }
}

}  // namespace
}  // namespace octet
