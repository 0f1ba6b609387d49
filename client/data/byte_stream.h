// The bytes of a file (or of memory) read forward through a buffer of fixed
// size, with the offset and the line that a reader stands at, so that it can
// name them and come back to them. A UTF-8 byte order mark at the start is
// skipped. Not thread-safe.
#ifndef OCTET_CLIENT_DATA_BYTE_STREAM_H_
#define OCTET_CLIENT_DATA_BYTE_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace octet {

struct BytePosition {
  int64_t offset = 0;  // bytes from the start
  int64_t line = 1;    // that this byte is in
};

class ByteStream {
 public:
  // NotFound, or InvalidArgument for what is not a regular file.
  static absl::StatusOr<std::unique_ptr<ByteStream>> Open(
      const std::string& path);
  static std::unique_ptr<ByteStream> FromMemory(std::string bytes,
                                                std::string name);
  ~ByteStream();
  ByteStream(const ByteStream&) = delete;
  ByteStream& operator=(const ByteStream&) = delete;

  // The byte here as 0..255; -1 at the end, or when status() is not OK.
  int Peek() {
    if (pos_ < end_ || Fill()) return static_cast<unsigned char>(data_[pos_]);
    return -1;
  }
  // The same, and goes past it.
  int Get() {
    const int byte = Peek();
    if (byte < 0) return byte;
    ++pos_;
    if (byte == '\n') ++line_;
    return byte;
  }
  // The bytes up to a newline or the end, without "\n" or "\r\n"; false when
  // there are none left. At most `max_bytes` are kept: `truncated` says that
  // there were more.
  bool GetLine(size_t max_bytes, std::string& line, bool& truncated);

  const std::string& name() const { return name_; }
  BytePosition position() const {
    return {buffer_offset_ + static_cast<int64_t>(pos_), line_};
  }
  // `position` is one that position() gave.
  void Seek(BytePosition position);
  // A read that failed.
  const absl::Status& status() const { return status_; }

 private:
  ByteStream(std::string name, int fd, std::string bytes);
  bool Fill();
  void SkipByteOrderMark();

  const std::string name_;
  const int fd_;        // -1: all bytes are in the buffer
  std::string buffer_;  // of a file: kBufferBytes, of which end_ hold something
  const char* data_;
  int64_t buffer_offset_ = 0;  // of buffer_[0] in the file
  size_t pos_ = 0;             // in the buffer
  size_t end_ = 0;
  int64_t line_ = 1;
  absl::Status status_;
};

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_BYTE_STREAM_H_
