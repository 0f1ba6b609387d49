#include "text/normalizer.h"

#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "text/utf8.h"

namespace octet {
namespace {

// Takes one user-defined piece or one character off the front of `text`.
absl::string_view TakeUnit(absl::string_view& text,
                           const PrefixMatcher& user_defined) {
  size_t num_bytes = user_defined.Longest(text).num_bytes;
  bool valid = true;
  if (num_bytes == 0) {
    const Utf8Char character = DecodeUtf8(text);
    num_bytes = character.num_bytes;
    valid = character.valid;
  }
  const absl::string_view unit = text.substr(0, num_bytes);
  text.remove_prefix(num_bytes);
  return valid ? unit : kReplacementCharacter;
}

}  // namespace

std::string Normalize(absl::string_view text, const NormalizerOptions& options,
                      const PrefixMatcher& user_defined) {
  const bool remove_extra = options.remove_extra_whitespaces;
  const absl::string_view space =
      options.escape_whitespaces ? kSpaceSymbol : " ";
  while (remove_extra && !text.empty()) {
    absl::string_view rest = text;
    if (TakeUnit(rest, user_defined) != " ") break;
    text = rest;
  }
  std::string result;
  if (text.empty()) return result;
  result.reserve(text.size() + text.size() / 2 + space.size());
  if (options.add_dummy_prefix) result.append(space.data(), space.size());

  bool after_space = remove_extra;
  while (!text.empty()) {
    absl::string_view unit = TakeUnit(text, user_defined);
    while (after_space && absl::ConsumePrefix(&unit, " ")) {
    }
    for (const char byte : unit) {
      if (byte == ' ') {
        result.append(space.data(), space.size());
      } else {
        result.push_back(byte);
      }
    }
    if (remove_extra && !unit.empty()) after_space = absl::EndsWith(unit, " ");
  }
  while (remove_extra && absl::EndsWith(result, space)) {
    result.erase(result.size() - space.size());
  }
  return result;
}

}  // namespace octet
