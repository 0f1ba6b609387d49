// Leveled log lines on stderr and fail-fast invariant checks (Debian 12's
// Abseil has no absl/log).
//
//   OCTET_LOG(INFO) << "rank " << rank << " ready";
//   OCTET_CHECK(offset <= size) << "offset " << offset;
//
// A line is written with one write(2), so lines of threads and of mpirun's
// ranks do not interleave. OCTET_CHECK is for broken invariants of our own code
// only: wrong input is an absl::Status. Thread-safe.
#ifndef OCTET_BASE_LOGGING_H_
#define OCTET_BASE_LOGGING_H_

#include <sstream>
#include <string>

namespace octet {

enum class LogLevel { kInfo = 0, kWarning = 1, kError = 2, kFatal = 3 };

// Put before each line, for example "rank 2". Empty by default. Call before
// threads start.
void SetLogTag(std::string tag);

namespace internal {

class LogMessage {
 public:
  LogMessage(LogLevel level, const char* file, int line);
  ~LogMessage();  // writes the line; aborts the process for kFatal
  LogMessage(const LogMessage&) = delete;
  LogMessage& operator=(const LogMessage&) = delete;
  std::ostream& stream() { return stream_; }

 private:
  const LogLevel level_;
  std::ostringstream stream_;
};

struct Voidify {
  void operator&(std::ostream&) {}
};

}  // namespace internal
}  // namespace octet

#define OCTET_LOG_LEVEL_INFO ::octet::LogLevel::kInfo
#define OCTET_LOG_LEVEL_WARNING ::octet::LogLevel::kWarning
#define OCTET_LOG_LEVEL_ERROR ::octet::LogLevel::kError
#define OCTET_LOG_LEVEL_FATAL ::octet::LogLevel::kFatal

#define OCTET_LOG(level)                                                     \
  ::octet::internal::LogMessage(OCTET_LOG_LEVEL_##level, __FILE__, __LINE__) \
      .stream()

#define OCTET_CHECK(condition)                 \
  (condition) ? (void)0                        \
              : ::octet::internal::Voidify() & \
                    (OCTET_LOG(FATAL) << "check failed: " #condition " ")

#endif  // OCTET_BASE_LOGGING_H_
