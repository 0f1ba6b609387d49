#include "client/data/byte_stream.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"

namespace octet {
namespace {

constexpr size_t kBufferBytes = 256 << 10;  // a few reads per MiB
constexpr absl::string_view kByteOrderMark = "\xEF\xBB\xBF";

absl::Status ErrnoError(int error, const std::string& path) {
  return absl::ErrnoToStatus(error, absl::StrCat(path, ": cannot read file"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ByteStream>> ByteStream::Open(
    const std::string& path) {
  // O_NONBLOCK: opening a FIFO would wait for a writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return ErrnoError(errno, path);
  auto stream = absl::WrapUnique(
      new ByteStream(path, fd, std::string(kBufferBytes, '\0')));
  struct stat info;
  if (fstat(fd, &info) != 0) return ErrnoError(errno, path);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a regular file"));
  }
  stream->SkipByteOrderMark();
  if (!stream->status().ok()) return stream->status();
  return stream;
}

std::unique_ptr<ByteStream> ByteStream::FromMemory(std::string bytes,
                                                   std::string name) {
  auto stream = absl::WrapUnique(
      new ByteStream(std::move(name), /*fd=*/-1, std::move(bytes)));
  stream->end_ = stream->buffer_.size();
  stream->SkipByteOrderMark();
  return stream;
}

ByteStream::ByteStream(std::string name, int fd, std::string bytes)
    : name_(std::move(name)),
      fd_(fd),
      buffer_(std::move(bytes)),
      data_(buffer_.data()) {}

ByteStream::~ByteStream() {
  if (fd_ >= 0) close(fd_);
}

bool ByteStream::GetLine(size_t max_bytes, std::string& line, bool& truncated) {
  line.clear();
  truncated = false;
  if (Peek() < 0) return false;
  while (pos_ < end_ || Fill()) {
    const char* begin = data_ + pos_;
    const void* newline = std::memchr(begin, '\n', end_ - pos_);
    const size_t num_bytes = newline == nullptr
                                 ? end_ - pos_
                                 : static_cast<const char*>(newline) - begin;
    const size_t kept = std::min(num_bytes, max_bytes - line.size());
    line.append(begin, kept);
    truncated |= kept < num_bytes;
    pos_ += num_bytes;
    if (newline == nullptr) continue;
    ++pos_;
    ++line_;
    break;
  }
  if (!line.empty() && line.back() == '\r') line.pop_back();
  return true;
}

void ByteStream::Seek(BytePosition position) {
  line_ = position.line;
  const int64_t from_buffer = position.offset - buffer_offset_;
  if (fd_ < 0 ||
      (from_buffer >= 0 && from_buffer <= static_cast<int64_t>(end_))) {
    pos_ = std::min<int64_t>(std::max<int64_t>(from_buffer, 0), end_);
    return;
  }
  buffer_offset_ = position.offset;
  pos_ = end_ = 0;
}

bool ByteStream::Fill() {
  if (fd_ < 0 || !status_.ok()) return false;
  buffer_offset_ += static_cast<int64_t>(end_);
  pos_ = end_ = 0;
  ssize_t got;
  do {
    got = pread(fd_, buffer_.data(), buffer_.size(), buffer_offset_);
  } while (got < 0 && errno == EINTR);
  if (got < 0) status_ = ErrnoError(errno, name_);
  end_ = std::max<ssize_t>(got, 0);
  return end_ > 0;
}

void ByteStream::SkipByteOrderMark() {
  if (Peek() < 0) return;
  if (absl::string_view(data_, end_).substr(0, 3) == kByteOrderMark) pos_ = 3;
}

}  // namespace octet
