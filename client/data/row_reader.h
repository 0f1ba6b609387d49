// The rows of a data file one by one, whatever its size: a JSON array is read
// element by element, and no more than one row is in memory.
//
//   .txt    each line is a row {"text": line}; empty lines too
//   .json   an array of objects, or one object a line as in .jsonl
//   .jsonl  one object a line; blank lines are passed over
//   .csv    RFC 4180: the first record names the columns; "quotes" may hold
//           commas, newlines and doubled quotes; all values are strings
//
// All text is UTF-8. Not thread-safe.
#ifndef OCTET_CLIENT_DATA_ROW_READER_H_
#define OCTET_CLIENT_DATA_ROW_READER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/data/byte_stream.h"
#include "nlohmann/json.hpp"

namespace octet {

// A row of more bytes is an error, so that a lost quote cannot fill the memory.
inline constexpr size_t kMaxRowBytes = 64 << 20;

struct Row {
  nlohmann::json fields;  // an object
  int64_t line = 0;       // where it begins
};

class RowReader {
 public:
  explicit RowReader(std::unique_ptr<ByteStream> stream)
      : stream_(std::move(stream)) {}
  virtual ~RowReader() = default;
  RowReader(const RowReader&) = delete;
  RowReader& operator=(const RowReader&) = delete;

  // nullopt at the end of the file. InvalidArgument, beginning with
  // "FILE:LINE: ", for a bad row: the next call goes on after it. Any other
  // error is of the file, which cannot be read on.
  absl::StatusOr<std::optional<Row>> Next();

  // Where the next row begins, or what stands before it; for Seek of a reader
  // of the same file.
  BytePosition position() const { return stream_->position(); }
  void Seek(BytePosition position);

  const std::string& file() const { return stream_->name(); }

 protected:
  virtual absl::StatusOr<std::optional<Row>> Read(ByteStream& stream) = 0;

  // "FILE:LINE: " before `what`.
  absl::Status BadRow(int64_t line, absl::string_view what) const;
  absl::Status BrokenFile(int64_t line, absl::string_view what) const;
  // One line, with its newline taken off; nullopt at the end. A line that is
  // too long is a bad row.
  absl::StatusOr<std::optional<std::string>> ReadLine(ByteStream& stream) const;
  // `text` is one JSON object that begins at `line`.
  absl::StatusOr<Row> ParseObject(absl::string_view text, int64_t line) const;

 private:
  const std::unique_ptr<ByteStream> stream_;
  absl::Status broken_;  // the error after which nothing can be read
};

// By the extension of `path`. InvalidArgument for an extension that is not
// read, among them parquet and arrow.
absl::StatusOr<std::unique_ptr<RowReader>> OpenRowReader(
    const std::string& path);
// The same over `stream`, with `extension` such as ".csv".
absl::StatusOr<std::unique_ptr<RowReader>> MakeRowReader(
    absl::string_view extension, std::unique_ptr<ByteStream> stream);

// The extension in lower case, with its dot; empty without one.
std::string FileExtension(absl::string_view path);
// OK for an extension that OpenRowReader reads; else its error.
absl::Status CheckExtension(absl::string_view path);

// "a string", "a number", ... with its article, for errors.
absl::string_view JsonTypeName(const nlohmann::json& value);

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_ROW_READER_H_
