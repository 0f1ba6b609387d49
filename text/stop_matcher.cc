#include "text/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace octet {

absl::StatusOr<StopMatcher> StopMatcher::Create(
    std::vector<std::string> stops) {
  StopMatcher matcher;
  for (size_t i = 0; i < stops.size(); ++i) {
    if (stops[i].empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "stop[", i, "] is empty, expected a string of at least one byte"));
    }
    Pattern pattern;
    pattern.text = std::move(stops[i]);
    pattern.fallback = {0, 0};
    for (size_t end = 1; end < pattern.text.size(); ++end) {
      Advance(pattern, pattern.text[end]);
      pattern.fallback.push_back(pattern.num_matched);
    }
    pattern.num_matched = 0;
    matcher.patterns_.push_back(std::move(pattern));
  }
  return matcher;
}

void StopMatcher::Advance(Pattern& pattern, char byte) {
  size_t& matched = pattern.num_matched;
  while (matched > 0 && pattern.text[matched] != byte) {
    matched = pattern.fallback[matched];
  }
  if (pattern.text[matched] == byte) ++matched;
}

std::string StopMatcher::Push(absl::string_view text) {
  if (matched_.has_value()) return "";
  size_t held_back = 0;
  for (const char byte : text) {
    held_.push_back(byte);
    held_back = 0;
    for (size_t i = 0; i < patterns_.size(); ++i) {
      Pattern& pattern = patterns_[i];
      Advance(pattern, byte);
      held_back = std::max(held_back, pattern.num_matched);
      const bool whole = pattern.num_matched == pattern.text.size();
      if (whole && (!matched_.has_value() ||
                    pattern.text.size() > patterns_[*matched_].text.size())) {
        matched_ = i;
      }
    }
    if (matched_.has_value()) {
      held_.erase(held_.size() - patterns_[*matched_].text.size());
      return std::exchange(held_, "");
    }
  }
  if (text.empty()) return "";
  std::string passed = held_.substr(0, held_.size() - held_back);
  held_.erase(0, passed.size());
  return passed;
}

std::string StopMatcher::Finish() {
  if (matched_.has_value()) return "";
  for (Pattern& pattern : patterns_) pattern.num_matched = 0;
  return std::exchange(held_, "");
}

}  // namespace octet
