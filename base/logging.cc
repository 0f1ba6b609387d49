#include "base/logging.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace octet {
namespace {

std::string& LogTag() {
  static std::string* tag =
      new std::string;  // never destroyed: threads may log at exit
  return *tag;
}

}  // namespace

void SetLogTag(std::string tag) { LogTag() = std::move(tag); }

namespace internal {

LogMessage::LogMessage(LogLevel level, const char* file, int line)
    : level_(level) {
  const char* base = std::strrchr(file, '/');
  stream_ << "IWEF"[static_cast<int>(level)]
          << absl::FormatTime(" %H:%M:%E3S ", absl::Now(),
                              absl::LocalTimeZone());
  if (!LogTag().empty()) stream_ << LogTag() << ' ';
  if (level >= LogLevel::kError)
    stream_ << (base ? base + 1 : file) << ':' << line << ' ';
}

LogMessage::~LogMessage() {
  stream_ << '\n';
  const std::string line = stream_.str();
  // A failed write of a log line has nowhere to be reported.
  [[maybe_unused]] ssize_t written =
      write(STDERR_FILENO, line.data(), line.size());
  if (level_ == LogLevel::kFatal) std::abort();
}

}  // namespace internal
}  // namespace octet
