#include "worker/moe/placement.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace octet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// What must hold for every table: the views agree with each other, and RankFor
// names a holder, the own rank first.
void ExpectConsistent(const Placement& placement) {
  for (int e = 0; e < placement.num_experts(); ++e) {
    const auto ranks = placement.RanksOf(e);
    ASSERT_FALSE(ranks.empty());
    EXPECT_TRUE(std::is_sorted(ranks.begin(), ranks.end()));
    for (int r = 0; r < placement.num_ranks(); ++r) {
      const bool holds = std::count(ranks.begin(), ranks.end(), r) > 0;
      const int index = placement.LocalIndex(r, e);
      ASSERT_EQ(index >= 0, holds);
      if (holds) {
        EXPECT_EQ(placement.LocalExperts(r)[index], e);
        EXPECT_EQ(placement.RankFor(e, r), r);
      } else {
        EXPECT_EQ(placement.RankFor(e, r), ranks[r % ranks.size()]);
      }
    }
  }
  for (int r = 0; r < placement.num_ranks(); ++r) {
    const auto local = placement.LocalExperts(r);
    EXPECT_TRUE(std::is_sorted(local.begin(), local.end()));
  }
}

TEST(PlacementTest, DefaultIsBalancedForEveryShape) {
  for (int num_experts = 1; num_experts <= 16; ++num_experts) {
    for (int num_ranks = 1; num_ranks <= 16; ++num_ranks) {
      SCOPED_TRACE(absl::StrCat(num_experts, " experts, ", num_ranks));
      auto placement = Placement::Default(num_experts, num_ranks);
      ASSERT_TRUE(placement.ok());
      EXPECT_EQ(placement->num_experts(), num_experts);
      EXPECT_EQ(placement->num_ranks(), num_ranks);
      ExpectConsistent(*placement);
      size_t smallest = num_experts, largest = 0, held = 0;
      for (int r = 0; r < num_ranks; ++r) {
        const size_t count = placement->LocalExperts(r).size();
        smallest = std::min(smallest, count);
        largest = std::max(largest, count);
        held += count;
      }
      EXPECT_GE(smallest, 1u);
      EXPECT_LE(largest - smallest, 1u);
      EXPECT_EQ(held, static_cast<size_t>(std::max(num_experts, num_ranks)));
      auto parsed =
          Placement::Parse(placement->ToString(), num_experts, num_ranks);
      ASSERT_TRUE(parsed.ok()) << parsed.status();
      EXPECT_EQ(*parsed, *placement);
    }
  }
}

TEST(PlacementTest, DefaultIsContiguousOrModulo) {
  const Placement three = Placement::Default(8, 3).value();
  EXPECT_THAT(three.LocalExperts(0), ElementsAre(0, 1));
  EXPECT_THAT(three.LocalExperts(1), ElementsAre(2, 3, 4));
  EXPECT_THAT(three.LocalExperts(2), ElementsAre(5, 6, 7));
  const Placement twelve = Placement::Default(8, 12).value();
  EXPECT_THAT(twelve.RanksOf(1), ElementsAre(1, 9));
  EXPECT_THAT(twelve.RanksOf(5), ElementsAre(5));
}

TEST(PlacementTest, TextMayReplicateAndLeaveRanksEmpty) {
  const Placement placement = Placement::Parse("1-3:2;0:3,0-1", 4, 5).value();
  ExpectConsistent(placement);
  EXPECT_THAT(placement.RanksOf(0), ElementsAre(0, 1, 3));
  EXPECT_THAT(placement.LocalExperts(2), ElementsAre(1, 2, 3));
  EXPECT_THAT(placement.LocalExperts(4), IsEmpty());
  EXPECT_EQ(placement.RankFor(0, 4), 1);  // replica 4 mod 3
  EXPECT_EQ(placement.RankFor(0, 3), 3);
  EXPECT_EQ(placement.ToString(), "0:0,1,3;1:2;2:2;3:2");
}

TEST(PlacementTest, EmptyTextIsTheDefault) {
  EXPECT_EQ(Placement::Parse("", 8, 3).value(),
            Placement::Default(8, 3).value());
}

struct BadText {
  std::string text;
  std::string sentence;
};

class BadPlacementTest : public ::testing::TestWithParam<BadText> {};

TEST_P(BadPlacementTest, IsRefusedWithASentence) {
  const auto placement = Placement::Parse(GetParam().text, 2, 3);
  EXPECT_EQ(placement.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(placement.status().message()),
              HasSubstr(GetParam().sentence));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadPlacementTest,
    ::testing::Values(
        BadText{"0:0", "expert 1 has no rank, expected at least one"},
        BadText{"0", "entry '0', expected experts:ranks"},
        BadText{"0:1:2", "entry '0:1:2', expected experts:ranks"},
        BadText{"0-1:0;", "entry '', expected experts:ranks"},
        BadText{"0-2:0", "has expert '0-2', expected numbers in [0, 1]"},
        BadText{"1-0:0", "has expert '1-0', expected numbers in [0, 1]"},
        BadText{"0-1:3", "has rank '3', expected numbers in [0, 2]"},
        BadText{"0-1:-1", "has rank '-1', expected a number or a range"},
        BadText{"0-1:x", "has rank 'x', expected a number or a range"},
        BadText{"0-1:", "has rank '', expected a number or a range"},
        BadText{"0-1:1,1", "on ranks 1,1, expected no rank twice"},
        BadText{"0-1:1;0:2", "names expert 0 again"}));

TEST(PlacementTest, RefusesNoExpertsAndNoRanks) {
  EXPECT_FALSE(Placement::Default(0, 1).ok());
  EXPECT_FALSE(Placement::Default(1, 0).ok());
}

}  // namespace
}  // namespace octet
