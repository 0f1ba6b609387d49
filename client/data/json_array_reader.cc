#include "client/data/json_array_reader.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace octet {
namespace {

std::string Found(int byte) {
  if (byte < 0) return "the end of the file";
  const char character = static_cast<char>(byte);
  return absl::StrCat("'", absl::CHexEscape(absl::string_view(&character, 1)),
                      "'");
}

void SkipSpace(ByteStream& stream) {
  while (stream.Peek() >= 0 && absl::ascii_isspace(stream.Peek())) stream.Get();
}

class JsonArrayReader : public RowReader {
 public:
  JsonArrayReader(std::unique_ptr<ByteStream> stream, int64_t begin)
      : RowReader(std::move(stream)), begin_(begin) {}

 protected:
  // Between rows the stream stands right after an element, or before the '['.
  absl::StatusOr<std::optional<Row>> Read(ByteStream& stream) override {
    const bool at_start = stream.position().offset <= begin_;
    SkipSpace(stream);
    const int separator = stream.Peek();
    if (separator == ']' && !at_start) return End(stream);
    if (separator != (at_start ? '[' : ',')) {
      return BrokenFile(stream.position().line,
                        absl::StrCat("the array has ", Found(separator),
                                     " after a row, expected ',' or ']'"));
    }
    stream.Get();
    SkipSpace(stream);
    if (stream.Peek() == ']') return End(stream);
    const int64_t line = stream.position().line;
    OCTET_ASSIGN_OR_RETURN(const std::string text, ScanElement(stream, line));
    return ParseObject(text, line);
  }

 private:
  // Stays before the ']', so that reading again says the same.
  absl::StatusOr<std::optional<Row>> End(ByteStream& stream) const {
    const BytePosition close = stream.position();
    stream.Get();
    SkipSpace(stream);
    const int byte = stream.Peek();
    const int64_t line = stream.position().line;
    stream.Seek(close);
    if (byte < 0) return std::nullopt;
    return BrokenFile(line, absl::StrCat("the file goes on with ", Found(byte),
                                         " after its array"));
  }

  // The text of the element here, up to its closing bracket; of one without
  // brackets up to the comma or bracket after it.
  absl::StatusOr<std::string> ScanElement(ByteStream& stream,
                                          int64_t line) const {
    std::string text;
    std::string open;  // brackets
    bool in_string = false;
    while (true) {
      const int byte = stream.Peek();
      if (byte < 0) return BrokenFile(line, "the row is never closed");
      if (text.size() >= kMaxRowBytes) {
        return BrokenFile(line, absl::StrCat("the row has more than ",
                                             kMaxRowBytes, " bytes"));
      }
      const bool closing = !in_string && (byte == '}' || byte == ']');
      if (open.empty() && (closing || (!in_string && byte == ','))) break;
      if (closing && (open.back() == '{') != (byte == '}')) {
        return BrokenFile(
            stream.position().line,
            absl::StrCat("the array has ", Found(byte), " where a '",
                         open.substr(open.size() - 1), "' is open"));
      }
      text.push_back(static_cast<char>(stream.Get()));
      if (byte == '"') in_string = !in_string;
      if (in_string && byte == '\\' && stream.Peek() >= 0) {
        text.push_back(static_cast<char>(stream.Get()));
      }
      if (!in_string && (byte == '{' || byte == '[')) {
        open.push_back(static_cast<char>(byte));
      }
      if (closing) open.pop_back();
      if (closing && open.empty()) break;
    }
    return text;
  }

  const int64_t begin_;  // offset of the '['
};

}  // namespace

std::unique_ptr<RowReader> MakeJsonArrayReader(
    std::unique_ptr<ByteStream> stream) {
  SkipSpace(*stream);
  const int64_t begin = stream->position().offset;
  return std::make_unique<JsonArrayReader>(std::move(stream), begin);
}

}  // namespace octet
