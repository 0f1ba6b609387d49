#include "client/data/lenient_json.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "client/data/row_reader.h"

namespace octet {
namespace {

constexpr int kMaxDepth = 32;

int64_t LineOf(absl::string_view text, size_t byte) {
  const auto end = text.begin() + std::min(byte, text.size());
  return 1 + std::count(text.begin(), end, '\n');
}

// Puts a space in place of each trailing comma, so that offsets stay.
std::vector<int64_t> BlankTrailingCommas(std::string& text) {
  std::vector<int64_t> lines;
  bool in_string = false;
  int64_t line = 1;
  int64_t comma_line = 0;
  size_t comma = std::string::npos;  // followed by nothing but space so far
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    line += c == '\n';
    if (in_string && c == '\\') {
      ++i;
      line += i < text.size() && text[i] == '\n';
      continue;
    }
    if (c == '"') in_string = !in_string;
    if (in_string || absl::ascii_isspace(c)) continue;
    if ((c == '}' || c == ']') && comma != std::string::npos) {
      text[comma] = ' ';
      lines.push_back(comma_line);
    }
    comma = c == ',' ? i : std::string::npos;
    comma_line = line;
  }
  return lines;
}

// The parser's callback: finds what nlohmann accepts and we do not.
struct StrictCheck {
  using Event = nlohmann::json::parse_event_t;

  bool operator()(int depth, Event event, nlohmann::json& parsed) {
    too_deep |= depth > kMaxDepth;
    if (too_deep) return false;
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key) {
      const std::string& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second && duplicate.empty()) {
        duplicate = absl::StrCat("'", absl::Utf8SafeCHexEscape(key), "'");
      }
    }
    return true;
  }

  std::vector<std::set<std::string>> keys;  // of the open objects
  std::string duplicate;
  bool too_deep = false;
};

}  // namespace

absl::StatusOr<LenientJson> ParseLenientJsonObject(absl::string_view text,
                                                   absl::string_view name) {
  std::string strict(text);
  LenientJson json;
  json.comma_lines = BlankTrailingCommas(strict);
  StrictCheck check;
  try {
    json.value = nlohmann::json::parse(
        strict,
        [&check](int depth, StrictCheck::Event event, nlohmann::json& parsed) {
          return check(depth, event, parsed);
        });
  } catch (const nlohmann::json::parse_error& error) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ":", LineOf(strict, error.byte), ": not valid JSON here"));
  } catch (const nlohmann::json::exception&) {  // a number beyond double
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": not valid JSON: a number is out of range"));
  }
  if (check.too_deep) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": JSON nests deeper than ", kMaxDepth, " levels"));
  }
  if (!check.duplicate.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": key ", check.duplicate, " appears twice"));
  }
  if (!json.value.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": the file is ",
                                                   JsonTypeName(json.value),
                                                   ", expected an object"));
  }
  return json;
}

}  // namespace octet
