#include "client/train/padding.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace octet {
namespace {

using ::testing::ElementsAre;

v1::TrainingSlot Row(const std::vector<std::vector<int32_t>>& sequences) {
  v1::TrainingSlot row;
  for (const std::vector<int32_t>& ids : sequences) {
    v1::TrainingSequence* sequence = row.add_sequences();
    sequence->mutable_token_ids()->Add(ids.begin(), ids.end());
    sequence->mutable_labels()->Add(ids.begin(), ids.end());
  }
  return row;
}

TEST(PaddingTest, RowsGetAsLongAsTheLongest) {
  std::vector<v1::TrainingSlot> rows = {Row({{5}}), Row({{6, 7}, {8, 9}}),
                                        Row({{10, 11}, {12}})};
  PadToLongest(2, rows);
  EXPECT_THAT(rows[0].sequences(0).token_ids(), ElementsAre(5, 2, 2, 2));
  EXPECT_THAT(rows[0].sequences(0).labels(), ElementsAre(5, -100, -100, -100));
  EXPECT_THAT(rows[1].sequences(0).token_ids(), ElementsAre(6, 7));
  EXPECT_THAT(rows[1].sequences(1).token_ids(), ElementsAre(8, 9));
  EXPECT_THAT(rows[2].sequences(0).token_ids(), ElementsAre(10, 11));
  EXPECT_THAT(rows[2].sequences(1).token_ids(), ElementsAre(12, 2));
  EXPECT_THAT(rows[2].sequences(1).labels(), ElementsAre(12, -100));
}

TEST(PaddingTest, OneRowStaysAsItIs) {
  std::vector<v1::TrainingSlot> rows = {Row({{5, 6}})}, none;
  PadToLongest(2, rows);
  EXPECT_EQ(NumTokens(rows[0]), 2);
  PadToLongest(2, none);
  EXPECT_TRUE(none.empty());
}

}  // namespace
}  // namespace octet
