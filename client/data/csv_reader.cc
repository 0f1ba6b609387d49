#include "client/data/csv_reader.h"

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "text/utf8.h"

namespace octet {
namespace {

// One record as it stands in the file.
struct Record {
  std::vector<std::string> fields;
  int64_t line = 0;  // where it begins
  bool text_after_quote = false;
  size_t num_bytes = 0;
};

class CsvReader : public RowReader {
 public:
  using RowReader::RowReader;

  absl::Status ReadHeader(ByteStream& stream) {
    OCTET_ASSIGN_OR_RETURN(std::optional<Record> header, ReadRecord(stream));
    if (!header.has_value()) {
      return BrokenFile(1,
                        "the file is empty, expected a line of column names");
    }
    OCTET_RETURN_IF_ERROR(CheckText(*header));
    std::set<std::string> seen;
    for (const std::string& column : header->fields) {
      if (seen.insert(column).second) continue;
      return BrokenFile(
          header->line,
          absl::StrCat("column '", absl::Utf8SafeCHexEscape(column),
                       "' is named twice"));
    }
    columns_ = std::move(header->fields);
    return absl::OkStatus();
  }

 protected:
  absl::StatusOr<std::optional<Row>> Read(ByteStream& stream) override {
    OCTET_ASSIGN_OR_RETURN(std::optional<Record> record, ReadRecord(stream));
    if (!record.has_value()) return std::nullopt;
    OCTET_RETURN_IF_ERROR(CheckText(*record));
    if (record->fields.size() != columns_.size()) {
      return BadRow(
          record->line,
          absl::StrCat("the row has ", record->fields.size(),
                       " fields, expected ", columns_.size(), " (",
                       absl::Utf8SafeCHexEscape(absl::StrJoin(columns_, ", ")),
                       ")"));
    }
    Row row;
    row.line = record->line;
    row.fields = nlohmann::json::object();
    for (size_t i = 0; i < columns_.size(); ++i) {
      row.fields[columns_[i]] = std::move(record->fields[i]);
    }
    return row;
  }

 private:
  absl::Status CheckText(const Record& record) const {
    for (size_t i = 0; i < record.fields.size(); ++i) {
      if (IsValidUtf8(record.fields[i])) continue;
      return BadRow(record.line,
                    absl::StrCat("field ", i + 1, " is not valid UTF-8"));
    }
    if (record.text_after_quote) {
      return BadRow(record.line,
                    "a field goes on after its closing quote, expected a comma "
                    "or the end of the line");
    }
    return absl::OkStatus();
  }

  // nullopt at the end. The error is of the file.
  absl::StatusOr<std::optional<Record>> ReadRecord(ByteStream& stream) const {
    SkipBlankLines(stream);
    if (stream.Peek() < 0) return std::nullopt;
    Record record;
    record.line = stream.position().line;
    bool more = true;
    while (more) {
      record.fields.emplace_back();
      if (stream.Peek() == '"') {
        OCTET_RETURN_IF_ERROR(ReadQuoted(stream, record));
      }
      more = ReadBare(stream, record);
      if (record.num_bytes > kMaxRowBytes) return TooLong(record);
    }
    return record;
  }

  static void SkipBlankLines(ByteStream& stream) {
    while (stream.Peek() == '\n' || stream.Peek() == '\r') stream.Get();
  }

  // From the opening quote to after the closing one.
  absl::Status ReadQuoted(ByteStream& stream, Record& record) const {
    stream.Get();
    std::string& field = record.fields.back();
    while (true) {
      const int byte = stream.Get();
      if (byte < 0) {
        return BrokenFile(record.line,
                          "the row has a quote that is never closed");
      }
      if (byte == '"' && stream.Peek() != '"') break;
      if (byte == '"') stream.Get();
      field.push_back(static_cast<char>(byte));
      if (++record.num_bytes > kMaxRowBytes) return TooLong(record);
    }
    const int next = stream.Peek();
    record.text_after_quote |=
        next >= 0 && next != ',' && next != '\n' && next != '\r';
    return absl::OkStatus();
  }

  // The rest of the field, and the comma or the newline after it; true when
  // another field follows.
  static bool ReadBare(ByteStream& stream, Record& record) {
    std::string& field = record.fields.back();
    while (record.num_bytes <= kMaxRowBytes) {
      const int byte = stream.Get();
      if (byte == ',') return true;
      if (byte < 0 || byte == '\n') return false;
      if (byte == '\r' && (stream.Peek() == '\n' || stream.Peek() < 0)) {
        continue;
      }
      field.push_back(static_cast<char>(byte));
      ++record.num_bytes;
    }
    return false;
  }

  absl::Status TooLong(const Record& record) const {
    return BrokenFile(
        record.line,
        absl::StrCat("the row has more than ", kMaxRowBytes,
                     " bytes: perhaps a quote that is never closed"));
  }

  std::vector<std::string> columns_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RowReader>> MakeCsvReader(
    std::unique_ptr<ByteStream> stream) {
  ByteStream& bytes = *stream;
  auto reader = std::make_unique<CsvReader>(std::move(stream));
  OCTET_RETURN_IF_ERROR(reader->ReadHeader(bytes));
  return reader;
}

}  // namespace octet
