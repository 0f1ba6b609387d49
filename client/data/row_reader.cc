#include "client/data/row_reader.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/data/csv_reader.h"
#include "client/data/json_array_reader.h"
#include "text/utf8.h"

namespace octet {
namespace {

class TextReader : public RowReader {
 public:
  using RowReader::RowReader;

 protected:
  absl::StatusOr<std::optional<Row>> Read(ByteStream& stream) override {
    const int64_t number = stream.position().line;
    OCTET_ASSIGN_OR_RETURN(std::optional<std::string> line, ReadLine(stream));
    if (!line.has_value()) return std::nullopt;
    if (!IsValidUtf8(*line)) {
      return BadRow(number, absl::StrCat("byte ", ValidUtf8Prefix(*line),
                                         " of the line is not valid UTF-8"));
    }
    Row row;
    row.fields = nlohmann::json::object();
    row.fields["text"] = *std::move(line);
    row.line = number;
    return row;
  }
};

class JsonLinesReader : public RowReader {
 public:
  using RowReader::RowReader;

 protected:
  absl::StatusOr<std::optional<Row>> Read(ByteStream& stream) override {
    while (true) {
      const int64_t number = stream.position().line;
      OCTET_ASSIGN_OR_RETURN(const std::optional<std::string> line,
                             ReadLine(stream));
      if (!line.has_value()) return std::nullopt;
      if (absl::StripAsciiWhitespace(*line).empty()) continue;
      return ParseObject(*line, number);
    }
  }
};

bool BeginsWithBracket(ByteStream& stream) {
  const BytePosition begin = stream.position();
  while (stream.Peek() >= 0 && absl::ascii_isspace(stream.Peek())) stream.Get();
  const bool bracket = stream.Peek() == '[';
  stream.Seek(begin);
  return bracket;
}

}  // namespace

absl::StatusOr<std::optional<Row>> RowReader::Next() {
  if (!broken_.ok()) return broken_;
  absl::StatusOr<std::optional<Row>> row = Read(*stream_);
  if (!stream_->status().ok()) row = stream_->status();
  if (!row.ok() && !absl::IsInvalidArgument(row.status())) {
    broken_ = row.status();
  }
  return row;
}

void RowReader::Seek(BytePosition position) {
  stream_->Seek(position);
  broken_ = absl::OkStatus();
}

absl::Status RowReader::BadRow(int64_t line, absl::string_view what) const {
  return absl::InvalidArgumentError(
      absl::StrCat(stream_->name(), ":", line, ": ", what));
}

absl::Status RowReader::BrokenFile(int64_t line, absl::string_view what) const {
  return absl::DataLossError(
      absl::StrCat(stream_->name(), ":", line, ": ", what));
}

absl::StatusOr<std::optional<std::string>> RowReader::ReadLine(
    ByteStream& stream) const {
  const int64_t number = stream.position().line;
  std::string line;
  bool truncated;
  if (!stream.GetLine(kMaxRowBytes, line, truncated)) return std::nullopt;
  if (truncated) {
    return BadRow(number, absl::StrCat("the line has more than ", kMaxRowBytes,
                                       " bytes"));
  }
  return line;
}

absl::StatusOr<Row> RowReader::ParseObject(absl::string_view text,
                                           int64_t line) const {
  Row row;
  row.line = line;
  try {
    row.fields = nlohmann::json::parse(text.begin(), text.end());
  } catch (const nlohmann::json::parse_error& error) {
    return BadRow(line, absl::StrCat("the row is not valid JSON at its byte ",
                                     error.byte));
  } catch (const nlohmann::json::exception&) {  // a number beyond double
    return BadRow(line, "the row is not valid JSON: a number is out of range");
  }
  if (!row.fields.is_object()) {
    return BadRow(line, absl::StrCat("the row is ", JsonTypeName(row.fields),
                                     ", expected an object"));
  }
  return row;
}

absl::StatusOr<std::unique_ptr<RowReader>> OpenRowReader(
    const std::string& path) {
  OCTET_RETURN_IF_ERROR(CheckExtension(path));
  OCTET_ASSIGN_OR_RETURN(auto stream, ByteStream::Open(path));
  return MakeRowReader(FileExtension(path), std::move(stream));
}

absl::StatusOr<std::unique_ptr<RowReader>> MakeRowReader(
    absl::string_view extension, std::unique_ptr<ByteStream> stream) {
  OCTET_RETURN_IF_ERROR(CheckExtension(extension));
  if (extension == ".txt") {
    return std::make_unique<TextReader>(std::move(stream));
  }
  if (extension == ".csv") return MakeCsvReader(std::move(stream));
  if (extension == ".json" && BeginsWithBracket(*stream)) {
    return MakeJsonArrayReader(std::move(stream));
  }
  return std::make_unique<JsonLinesReader>(std::move(stream));
}

std::string FileExtension(absl::string_view path) {
  const absl::string_view file = path.substr(path.find_last_of('/') + 1);
  const size_t dot = file.find_last_of('.');
  if (dot == file.npos) return "";
  return absl::AsciiStrToLower(file.substr(dot));
}

absl::Status CheckExtension(absl::string_view path) {
  const std::string extension = FileExtension(path);
  for (const char* known : {".txt", ".json", ".jsonl", ".csv"}) {
    if (extension == known) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": files of type '", extension,
                   "' are not read, expected .txt, .json, .jsonl or .csv",
                   extension == ".parquet" || extension == ".arrow"
                       ? " (convert it to JSON lines, for example with pandas)"
                       : ""));
}

absl::string_view JsonTypeName(const nlohmann::json& value) {
  if (value.is_null()) return "null";
  if (value.is_boolean()) return "a boolean";
  if (value.is_number()) return "a number";
  if (value.is_string()) return "a string";
  return value.is_array() ? "an array" : "an object";
}

}  // namespace octet
