#include "text/stop_matcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <optional>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "tests/text/random_text.h"
#include "text/utf8.h"

namespace octet {
namespace {

using Strings = std::vector<std::string>;

struct Outcome {
  std::string text;
  std::optional<size_t> matched;
  bool operator==(const Outcome&) const = default;
};

void PrintTo(const Outcome& outcome, std::ostream* out) {
  *out << "'" << outcome.text << "' stop "
       << (outcome.matched ? static_cast<int>(*outcome.matched) : -1);
}

Outcome Feed(const Strings& stops, const Strings& parts) {
  StopMatcher matcher = StopMatcher::Create(stops).value();
  Outcome outcome;
  for (const std::string& part : parts) outcome.text += matcher.Push(part);
  outcome.text += matcher.Finish();
  outcome.matched = matcher.matched();
  return outcome;
}

// The definition, by trying every end and every stop string.
Outcome Naive(const Strings& stops, const std::string& text) {
  for (size_t end = 0; end <= text.size(); ++end) {
    std::optional<size_t> longest;
    for (size_t i = 0; i < stops.size(); ++i) {
      const size_t size = stops[i].size();
      const bool ends_here =
          size <= end && text.compare(end - size, size, stops[i]) == 0;
      if (ends_here && (!longest || size > stops[*longest].size())) longest = i;
    }
    if (longest) return {text.substr(0, end - stops[*longest].size()), longest};
  }
  return {text, std::nullopt};
}

TEST(StopMatcherTest, HoldsBackWhatMayBeginAStop) {
  StopMatcher matcher = StopMatcher::Create({"END", "\n\n"}).value();
  EXPECT_EQ(matcher.Push("a E"), "a ");
  EXPECT_EQ(matcher.Push("N"), "");
  EXPECT_EQ(matcher.Push("T\n"), "ENT");
  EXPECT_EQ(matcher.Push(""), "");
  EXPECT_EQ(matcher.matched(), std::nullopt);
  EXPECT_EQ(matcher.Push("\nmore"), "");
  EXPECT_EQ(matcher.matched(), 1u);
  EXPECT_EQ(matcher.Push("END"), "");
  EXPECT_EQ(matcher.Finish(), "");
  EXPECT_EQ(matcher.matched(), 1u);
}

TEST(StopMatcherTest, FinishGivesWhatWasHeldBack) {
  StopMatcher matcher = StopMatcher::Create({"END"}).value();
  EXPECT_EQ(matcher.Push("EN"), "");
  EXPECT_EQ(matcher.Finish(), "EN");
  EXPECT_EQ(matcher.Push("D"), "D");
}

TEST(StopMatcherTest, NoStopsLetEverythingPass) {
  StopMatcher matcher = StopMatcher::Create({}).value();
  EXPECT_EQ(matcher.Push("abc"), "abc");
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcherTest, TheFirstToEndWinsAndThenTheLongest) {
  EXPECT_EQ(Feed({"abcd", "bc"}, {"xabcd"}), (Outcome{"xa", 1}));
  EXPECT_EQ(Feed({"bc", "abc"}, {"xabc"}), (Outcome{"x", 1}));
  EXPECT_EQ(Feed({"aab"}, {"aaab"}), (Outcome{"a", 0}));
  EXPECT_EQ(Feed({"ab", "ab"}, {"ab"}), (Outcome{"", 0}));
}

TEST(StopMatcherTest, AnEmptyStopIsRefused) {
  EXPECT_EQ(StopMatcher::Create({"a", ""}).status().message(),
            "stop[1] is empty, expected a string of at least one byte");
}

TEST(StopMatcherTest, TheCutsDoNotMatter) {
  std::mt19937 random(5);
  const auto letters = [&](size_t max_size) {
    std::string text;
    for (size_t left = 1 + random() % max_size; left > 0; --left) {
      text += static_cast<char>('a' + random() % 2);
    }
    return text;
  };
  for (int round = 0; round < 5000; ++round) {
    Strings stops;
    for (size_t left = random() % 4; left > 0; --left) {
      stops.push_back(letters(7));
    }
    const std::string text = letters(30);
    Strings parts;
    for (size_t begin = 0; begin < text.size();) {
      const size_t size = random() % 5;
      parts.push_back(text.substr(begin, size));
      begin += size;
    }
    ASSERT_EQ(Feed(stops, parts), Naive(stops, text))
        << testing::PrintToString(stops) << " in "
        << testing::PrintToString(parts);
  }
}

TEST(StopMatcherTest, NeverCutsACharacter) {
  std::mt19937 random(6);
  // Stops that share first bytes with many other characters.
  const Strings stops = {"你好", "\xF0\x9F\x98\x80", "é."};
  for (int round = 0; round < 2000; ++round) {
    StopMatcher matcher = StopMatcher::Create(stops).value();
    for (int i = 0; i < 10; ++i) {
      const std::string part = random() % 3 == 0
                                   ? std::string(round % 2 ? "你" : "é")
                                   : test::RandomUnicode(random, 2);
      ASSERT_TRUE(IsValidUtf8(matcher.Push(part)));
    }
    ASSERT_TRUE(IsValidUtf8(matcher.Finish()));
  }
}

}  // namespace
}  // namespace octet
