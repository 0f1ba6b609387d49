// Wrong `.model` bytes, each with its one sentence.
#include "text/sentencepiece_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/data.h"
#include "tests/text/model_builder.h"
#include "tests/text/spm_oracle.h"

namespace octet {
namespace {

using test::BytesField;
using test::FloatField;
using test::ModelBuilder;
using test::PieceField;
using test::Varint;
using test::VarintField;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(SentencePieceModelTest, ReadsAllThatMatters) {
  const std::string bytes = ModelBuilder()
                                .Add("a", -1.5f)
                                .Add("u", 0, PieceType::kUserDefined)
                                .Add("x", -3, PieceType::kUnused)
                                .Trainer(BytesField(44, " ? "))
                                .Trainer(BytesField(46, "[BOS]"))
                                .Normalizer(VarintField(3, 0))
                                .Normalizer(VarintField(4, 1))
                                .Normalizer(VarintField(5, 0))
                                .Build();
  const auto model = ParseSentencePieceModel(bytes, "m");
  ASSERT_TRUE(model.ok()) << model.status();
  ASSERT_EQ(model->pieces.size(), 6u);
  EXPECT_EQ(model->pieces[0].type, PieceType::kUnknown);
  EXPECT_EQ(model->pieces[3].text, "a");
  EXPECT_EQ(model->pieces[3].score, -1.5f);
  EXPECT_EQ(model->pieces[3].type, PieceType::kNormal);
  EXPECT_EQ(model->pieces[4].type, PieceType::kUserDefined);
  EXPECT_EQ(model->pieces[5].type, PieceType::kUnused);
  EXPECT_EQ(model->unk_surface, " ? ");
  EXPECT_EQ(model->bos_piece, "[BOS]");
  EXPECT_EQ(model->eos_piece, "</s>");
  EXPECT_FALSE(model->byte_fallback);
  EXPECT_FALSE(model->add_dummy_prefix);
  EXPECT_TRUE(model->remove_extra_whitespaces);
  EXPECT_FALSE(model->escape_whitespaces);
}

TEST(SentencePieceModelTest, UnknownFieldsAreSkipped) {
  const std::string bytes = absl::StrCat(
      VarintField(200, 1), BytesField(201, "later"), FloatField(202, 1),
      Varint(203 << 3 | 1), "12345678", ModelBuilder().Build());
  EXPECT_TRUE(ParseSentencePieceModel(bytes, "m").ok());
}

TEST(SentencePieceModelTest, ByteNames) {
  EXPECT_EQ(BytePieceValue("<0x00>"), 0);
  EXPECT_EQ(BytePieceValue("<0x3A>"), 0x3A);
  EXPECT_EQ(BytePieceValue("<0xFF>"), 0xFF);
  for (const char* wrong : {"", "<0x3a>", "<0x3>", "<0x3AA>", "0x3A", "<1x3A>",
                            "<0xGG>", "<0x3A)"}) {
    EXPECT_EQ(BytePieceValue(wrong), -1) << wrong;
  }
}

struct BadModel {
  const char* name;
  std::string bytes;
  std::string sentence;
};

void PrintTo(const BadModel& bad, std::ostream* out) { *out << bad.name; }

std::string Good() { return ModelBuilder().Build(); }

std::vector<BadModel> WireCases() {
  return {
      {"empty", "", "is empty, expected a SentencePiece model"},
      {"tag_cut_off", "\x80", "the number at byte 0 is cut off"},
      {"value_cut_off", absl::StrCat(Good(), "\x48\xFF"),
       absl::StrCat("the number at byte ", Good().size() + 1, " is cut off")},
      {"endless_varint", std::string(11, '\xFF'),
       "the number at byte 0 is longer than the 10 bytes a varint may have"},
      {"field_zero", std::string("\0\0", 2),
       "the field at byte 0 has number 0, expected 1 to 536870911"},
      {"huge_field", absl::StrCat(Varint(uint64_t{1} << 40), "a"),
       "the field at byte 0 has number 137438953472, expected 1 to "
       "536870911"},
      {"group", "\x0B",
       "the field at byte 0 has wire type 3, expected 0, 1, "
       "2 or 5"},
      {"text_file", "{\"model\": 1}",
       "the field at byte 0 has wire type 3, expected 0, 1, 2 or 5"},
      {"length_past_the_end", "\x0A\x7Fxyz",
       "the field at byte 0 says it has 127 bytes, but 3 are left"},
      {"length_of_2_to_63", absl::StrCat("\x0A", Varint(uint64_t{1} << 63)),
       "the field at byte 0 says it has 9223372036854775808 bytes, but 0 are "
       "left"},
      {"length_of_all_ones", absl::StrCat("\x0A", Varint(UINT64_MAX), "a"),
       "the field at byte 0 says it has 18446744073709551615 bytes, but 1 are "
       "left"},
      {"inner_length_past_the_message", BytesField(1, "\x0A\x05xyz"),
       "the field at byte 2 says it has 5 bytes, but 3 are left"},
      {"float_cut_off", BytesField(1, "\x15\x01\x02"),
       "the number at byte 3 is cut off"},
      {"fixed64_cut_off", absl::StrCat("\x09", "1234567"),
       "the number at byte 1 is cut off"},
  };
}

std::vector<BadModel> PieceCases() {
  return {
      {"pieces_are_a_number", VarintField(1, 7),
       "pieces at byte 0 has wire type 0, expected 2"},
      {"piece_text_is_a_number", BytesField(1, VarintField(1, 7)),
       "pieces[0].piece at byte 2 has wire type 0, expected 2"},
      {"score_is_a_number", BytesField(1, VarintField(2, 7)),
       "pieces[0].score at byte 2 has wire type 0, expected 5"},
      {"type_is_a_float", BytesField(1, FloatField(3, 1)),
       "pieces[0].type at byte 2 has wire type 5, expected 0"},
      {"type_9", BytesField(1, VarintField(3, 9)),
       "pieces[0].type is 9, expected 1 to 6"},
      {"type_0", BytesField(1, VarintField(3, 0)),
       "pieces[0].type is 0, expected 1 to 6"},
      {"empty_piece", ModelBuilder().Add("", 0).Build(),
       "pieces[3].piece is empty"},
      {"no_piece_text", BytesField(1, FloatField(2, 1)),
       "pieces[0].piece is empty"},
      {"piece_is_not_utf8", PieceField("\xFF", 0, PieceType::kNormal),
       "pieces[0].piece at byte 2 is not valid UTF-8"},
      {"huge_piece", ModelBuilder().Add(std::string(513, 'a'), 0).Build(),
       "pieces[3].piece has 513 bytes, expected at most 512"},
      {"score_nan", ModelBuilder().Add("a", NAN).Build(),
       "pieces[3].score of 'a' is nan, expected a finite number"},
      {"score_infinite", ModelBuilder().Add("a", -kInfinity).Build(),
       "pieces[3].score of 'a' is -inf, expected a finite number"},
      {"twice", ModelBuilder().Add("a", 0).Add("b", 0).Add("a", 1).Build(),
       "piece 'a' is defined twice, with ids 3 and 5"},
      {"twice_by_type", ModelBuilder().Add("<s>", 0).Build(),
       "piece '<s>' is defined twice, with ids 1 and 3"},
      {"two_unknowns",
       ModelBuilder().Add("<u>", 0, PieceType::kUnknown).Build(),
       "has two pieces of type UNKNOWN, with ids 0 and 3, expected one"},
      {"no_unknown",
       absl::StrCat(PieceField("a", 0, PieceType::kNormal),
                    BytesField(2, VarintField(3, 2))),
       "has no piece of type UNKNOWN, expected one"},
      {"no_pieces", BytesField(2, VarintField(3, 2)), "has no pieces"},
      {"byte_without_fallback",
       ModelBuilder().Add("<0x41>", 0, PieceType::kByte).Build(),
       "pieces[3] '<0x41>' is a byte piece, but trainer_spec.byte_fallback is "
       "false"},
      {"byte_with_a_wrong_name",
       ModelBuilder().AddBytes().Add("<0xZZ>", 0, PieceType::kByte).Build(),
       "pieces[259] is a byte piece named '<0xZZ>', expected '<0x00>' to "
       "'<0xFF>'"},
      {"fallback_without_bytes",
       ModelBuilder()
           .Add("<0x00>", 0, PieceType::kByte)
           .Trainer(VarintField(35, 1))
           .Build(),
       "the byte piece '<0x01>' is missing, but trainer_spec.byte_fallback is "
       "true"},
  };
}

std::vector<BadModel> SpecCases() {
  const std::string unk = PieceField("<unk>", 0, PieceType::kUnknown);
  return {
      {"no_trainer_spec", unk,
       "trainer_spec.model_type is 1, expected 2 (BPE)"},
      {"unigram", ModelBuilder().Trainer(VarintField(3, 1)).Build(),
       "trainer_spec.model_type is 1, expected 2 (BPE)"},
      {"trainer_spec_is_a_number", absl::StrCat(unk, VarintField(2, 2)),
       "trainer_spec at byte 16 has wire type 0, expected 2"},
      {"model_type_is_a_string",
       absl::StrCat(unk, BytesField(2, BytesField(3, "bpe"))),
       "trainer_spec.model_type at byte 18 has wire type 2, expected 0"},
      {"byte_fallback_is_a_string",
       absl::StrCat(unk, BytesField(2, BytesField(35, "yes"))),
       "trainer_spec.byte_fallback at byte 18 has wire type 2, expected 0"},
      {"bos_piece_is_not_utf8",
       absl::StrCat(unk, BytesField(2, BytesField(46, "\xC0"))),
       "trainer_spec.bos_piece at byte 18 is not valid UTF-8"},
      {"suffix", ModelBuilder().Trainer(VarintField(24, 1)).Build(),
       "trainer_spec.treat_whitespace_as_suffix is true, expected false"},
      {"charsmap", ModelBuilder().Normalizer(BytesField(2, "abc")).Build(),
       "normalizer_spec.precompiled_charsmap has 3 bytes, expected none: only "
       "models trained with --normalization_rule_name=identity are read"},
      {"denormalizer",
       absl::StrCat(Good(), BytesField(5, BytesField(2, "abc"))),
       "denormalizer_spec.precompiled_charsmap has 3 bytes, expected none: "
       "only models trained with --normalization_rule_name=identity are read"},
      {"normalizer_spec_is_a_float", absl::StrCat(unk, FloatField(3, 2)),
       "normalizer_spec at byte 16 has wire type 5, expected 2"},
      {"dummy_prefix_is_a_float",
       absl::StrCat(unk, BytesField(3, FloatField(3, 2))),
       "normalizer_spec.add_dummy_prefix at byte 18 has wire type 5, expected "
       "0"},
  };
}

class BadModelTest : public testing::TestWithParam<BadModel> {};

TEST_P(BadModelTest, GetsOneSentence) {
  const auto model = ParseSentencePieceModel(GetParam().bytes, "bad.model");
  EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(model.status().message()),
            absl::StrCat("bad.model: ", GetParam().sentence));
}

std::string CaseName(const testing::TestParamInfo<BadModel>& info) {
  return info.param.name;
}
INSTANTIATE_TEST_SUITE_P(Wire, BadModelTest, testing::ValuesIn(WireCases()),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Piece, BadModelTest, testing::ValuesIn(PieceCases()),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Spec, BadModelTest, testing::ValuesIn(SpecCases()),
                         CaseName);

// A file cut anywhere is refused, or (at a field's end) is a smaller model.
TEST(SentencePieceModelTest, EveryTruncationIsTold) {
  const std::string bytes = test::ReadFile(
      test::SourcePath("launch/quickstart_model/tokenizer.model"));
  int num_refused = 0;
  for (size_t size = 0; size < bytes.size(); size += 1 + size / 50) {
    const auto model =
        ParseSentencePieceModel(absl::string_view(bytes).substr(0, size), "m");
    num_refused += model.ok() ? 0 : 1;
    EXPECT_FALSE(model.ok()) << size;  // the specs stand at the end
  }
  EXPECT_GT(num_refused, 100);
}

}  // namespace
}  // namespace octet
