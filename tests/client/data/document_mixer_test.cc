// The order of mixed data sets against Hugging Face's rules, written down once
// more over whole lists, and taken up at every place.
#include "client/data/document_mixer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/client/data/files.h"

namespace octet {
namespace {

using testing::ElementsAre;
using Names = std::vector<std::string>;

class MixerTest : public testing::Test {
 protected:
  // Data sets of so many rows: "0.0", "0.1", ... , "1.0", ...; each in two
  // files.
  absl::StatusOr<std::unique_ptr<DocumentMixer>> Mix(
      const std::vector<int>& sizes, MixStrategy strategy,
      std::vector<double> probabilities = {}, uint64_t seed = 1,
      int64_t max_documents = 0) {
    std::vector<std::unique_ptr<DatasetReader>> readers;
    for (size_t d = 0; d < sizes.size(); ++d) {
      std::string halves[2];
      for (int i = 0; i < sizes[d]; ++i) {
        absl::StrAppend(&halves[i >= sizes[d] / 2], d, ".", i, "\n");
      }
      DatasetSpec spec;
      spec.name = absl::StrCat("d", d);
      spec.columns.prompt = "text";
      for (int half = 0; half < 2; ++half) {
        spec.files.push_back(test::WriteFile(
            dir_, absl::StrCat(d, "-", half, ".txt"), halves[half]));
      }
      readers.push_back(std::make_unique<DatasetReader>(
          spec, static_cast<int>(d), Stage::kPretrain, BadRowPolicy::kStop,
          max_documents, &report_));
    }
    return DocumentMixer::Create(std::move(readers), strategy,
                                 std::move(probabilities), seed);
  }

  static Names ReadAll(DocumentMixer& mixer) {
    Names names;
    while (auto document = mixer.Next().value()) {
      EXPECT_EQ(absl::StrCat(document->dataset), document->text.substr(0, 1));
      names.push_back(document->text);
    }
    EXPECT_FALSE(mixer.Next().value().has_value()) << "the end stays the end";
    return names;
  }

  Names MixAll(const std::vector<int>& sizes, MixStrategy strategy,
               std::vector<double> probabilities = {}, uint64_t seed = 1) {
    const auto mixer = Mix(sizes, strategy, probabilities, seed).value();
    std::vector<MixPosition> places = {mixer->position()};
    Names names;
    while (auto document = mixer->Next().value()) {
      names.push_back(document->text);
      places.push_back(mixer->position());
    }
    for (size_t i = 0; i < places.size(); ++i) {
      EXPECT_TRUE(mixer->Restore(places[i]).ok());
      EXPECT_EQ(ReadAll(*mixer), Names(names.begin() + i, names.end()))
          << "from document " << i;
    }
    return names;
  }

  std::string Error(const std::vector<int>& sizes, MixStrategy strategy,
                    std::vector<double> probabilities) {
    return std::string(Mix(sizes, strategy, probabilities).status().message());
  }

  test::TempDir dir_;
  DataReport report_;
};

TEST_F(MixerTest, OneAfterTheOther) {
  EXPECT_THAT(MixAll({2, 0, 3}, MixStrategy::kConcat),
              ElementsAre("0.0", "0.1", "2.0", "2.1", "2.2"));
}

TEST_F(MixerTest, InTurnsUntilOneHasEnded) {
  EXPECT_THAT(MixAll({2, 3}, MixStrategy::kInterleaveUnder),
              ElementsAre("0.0", "1.0", "0.1", "1.1"));
  EXPECT_THAT(MixAll({3, 2}, MixStrategy::kInterleaveUnder),
              ElementsAre("0.0", "1.0", "0.1", "1.1"));
}

TEST_F(MixerTest, InTurnsUntilAllHaveEnded) {
  EXPECT_THAT(
      MixAll({2, 5, 1}, MixStrategy::kInterleaveOver),
      ElementsAre("0.0", "1.0", "2.0", "0.1", "1.1", "2.0", "0.0", "1.2", "2.0",
                  "0.1", "1.3", "2.0", "0.0", "1.4", "2.0"));
}

// The rule by its words: draws stop as soon as one (or every) data set has
// given its last row; one that ended early begins again.
TEST_F(MixerTest, ByChance) {
  for (const auto strategy :
       {MixStrategy::kInterleaveUnder, MixStrategy::kInterleaveOver}) {
    for (uint64_t seed = 0; seed < 8; ++seed) {
      const std::vector<int> sizes = {3, 7, 5};
      const Names names = MixAll(sizes, strategy, {0.2, 0.5, 0.3}, seed);
      std::vector<int> given(3, 0);
      size_t stop = 0;
      for (size_t i = 0; i < names.size() && stop == 0; ++i) {
        const int d = names[i][0] - '0';
        EXPECT_EQ(names[i], absl::StrCat(d, ".", given[d]++ % sizes[d]));
        int ended = 0;
        for (int each = 0; each < 3; ++each)
          ended += given[each] >= sizes[each];
        const int needed = strategy == MixStrategy::kInterleaveUnder ? 1 : 3;
        if (ended >= needed) stop = i + 1;
      }
      EXPECT_EQ(stop, names.size());
    }
  }
}

TEST_F(MixerTest, ChanceFollowsTheProbabilities) {
  const auto mixer =
      Mix({4000, 4000}, MixStrategy::kInterleaveUnder, {0.25, 0.75}).value();
  std::map<char, int> counts;
  for (int i = 0; i < 4000; ++i) ++counts[mixer->Next().value()->text[0]];
  // Three standard deviations of 4000 draws.
  EXPECT_NEAR(counts['0'], 1000, 82);
  EXPECT_NE(MixAll({9, 9}, MixStrategy::kInterleaveUnder, {0.5, 0.5}, 1),
            MixAll({9, 9}, MixStrategy::kInterleaveUnder, {0.5, 0.5}, 2));
}

TEST_F(MixerTest, AtMostSoManyRowsOfEach) {
  const auto mixer =
      Mix({5, 1, 4}, MixStrategy::kConcat, {}, 1, /*max_documents=*/2).value();
  EXPECT_THAT(ReadAll(*mixer), ElementsAre("0.0", "0.1", "1.0", "2.0", "2.1"));
}

TEST_F(MixerTest, OptionsThatAreWrong) {
  EXPECT_EQ(Error({1, 1}, MixStrategy::kConcat, {0.5, 0.5}),
            "interleave_probs is given with mix_strategy concat, expected it "
            "with interleave_under or interleave_over only");
  EXPECT_EQ(Error({1, 1}, MixStrategy::kInterleaveOver, {1}),
            "interleave_probs has 1 numbers, expected one for each of 2 data "
            "sets");
  EXPECT_EQ(Error({1, 1}, MixStrategy::kInterleaveOver, {0, 1}),
            "interleave_probs has 0, expected numbers above 0 and at most 1");
  EXPECT_EQ(Error({1, 1}, MixStrategy::kInterleaveOver, {0.5, 0.4}),
            "interleave_probs has the sum 0.9, expected 1");
  EXPECT_EQ(Error({1, 0}, MixStrategy::kInterleaveUnder, {}),
            "data set 'd1' has no rows, expected some to interleave");
  const auto mixer = Mix({1, 1}, MixStrategy::kConcat).value();
  EXPECT_EQ(mixer->Restore(MixPosition()).message(),
            "the data position is of 0 data sets, expected 2");
}

TEST_F(MixerTest, BadRowsStopOrAreCounted) {
  DatasetSpec spec;
  spec.name = "d";
  spec.files = {test::WriteFile(
      dir_, "d.jsonl",
      "{\"instruction\": \"a\"}\n{\"instruction\": 1}\n{\n{\"instruction\": "
      "\"b\"}\n")};
  for (const auto policy : {BadRowPolicy::kStop, BadRowPolicy::kSkip}) {
    DataReport report;
    DatasetReader reader(spec, 0, Stage::kPretrain, policy, 0, &report);
    EXPECT_EQ(reader.Next().value()->text, "a");
    const auto second = reader.Next();
    const std::string error =
        spec.files[0] +
        ":2: field 'instruction' is a number, expected a string";
    if (policy == BadRowPolicy::kStop) {
      EXPECT_EQ(second.status().message(), error);
      continue;
    }
    EXPECT_EQ(second.value()->text, "b");
    EXPECT_FALSE(reader.Next().value().has_value());
    EXPECT_EQ(report.rows, 4);
    EXPECT_EQ(report.bad_rows, 2);
    EXPECT_THAT(report.bad_row_errors,
                ElementsAre(error, spec.files[0] + ":3: the row is not valid "
                                                   "JSON at its byte 2"));
  }
}

}  // namespace
}  // namespace octet
