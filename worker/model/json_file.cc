#include "worker/model/json_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

namespace octet {
namespace {

constexpr int kMaxDepth = 32;
constexpr size_t kMaxExcerptBytes = 60;

// Watches the parser for what nlohmann accepts and we do not.
class StrictCheck {
 public:
  using Event = nlohmann::json::parse_event_t;

  // The parser's callback; false drops the value, which bounds its memory.
  bool operator()(int depth, Event event, nlohmann::json& parsed) {
    if (depth > kMaxDepth) too_deep_ = true;
    if (too_deep_) return false;
    if (event == Event::object_start) {
      keys_.emplace_back();
    } else if (event == Event::object_end) {
      keys_.pop_back();
    } else if (event == Event::key) {
      const std::string& key = parsed.get_ref<const std::string&>();
      if (!keys_.back().insert(key).second && duplicate_.empty()) {
        duplicate_ = JsonExcerpt(parsed);
      }
    }
    return true;
  }

  absl::Status status(absl::string_view name) const {
    if (too_deep_) {
      return absl::InvalidArgumentError(absl::StrCat(
          name, ": JSON nests deeper than ", kMaxDepth, " levels"));
    }
    if (!duplicate_.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": key ", duplicate_, " appears twice"));
    }
    return absl::OkStatus();
  }

 private:
  std::vector<std::set<std::string>> keys_;  // of the open objects
  std::string duplicate_;
  bool too_deep_ = false;
};

absl::Status ErrnoError(int error, const std::string& path) {
  return absl::ErrnoToStatus(error, absl::StrCat(path, ": cannot read file"));
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text,
                                               absl::string_view name) {
  StrictCheck check;
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(
        text.begin(), text.end(),
        [&check](int depth, StrictCheck::Event event, nlohmann::json& parsed) {
          return check(depth, event, parsed);
        });
  } catch (const nlohmann::json::parse_error& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": not valid JSON at byte ", error.byte));
  } catch (const nlohmann::json::exception&) {  // a number beyond double
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": not valid JSON: a number is out of range"));
  }
  const absl::Status status = check.status(name);
  if (!status.ok()) return status;
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": holds a JSON ", json.type_name(), ", expected an object"));
  }
  return json;
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path,
                                          uint64_t max_bytes) {
  // O_NONBLOCK: opening a FIFO would wait for a writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return ErrnoError(errno, path);
  absl::Cleanup close_fd = [fd] { close(fd); };
  struct stat info;
  if (fstat(fd, &info) != 0) return ErrnoError(errno, path);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a regular file"));
  }
  if (static_cast<uint64_t>(info.st_size) > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": file has ", info.st_size,
                     " bytes, expected at most ", max_bytes));
  }
  std::string text(static_cast<size_t>(info.st_size), '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t got = read(fd, text.data() + done, text.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoError(errno, path);
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  text.resize(done);
  return text;
}

absl::Status CheckCheckpointDirectory(const std::string& dir) {
  const int fd = open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
    close(fd);
    return absl::OkStatus();
  }
  if (errno == ENOENT) {
    return absl::NotFoundError(
        absl::StrCat(dir, ": no such directory, expected a checkpoint"));
  }
  return absl::ErrnoToStatus(errno,
                             absl::StrCat(dir, ": cannot open directory"));
}

std::string JsonExcerpt(const nlohmann::json& value) {
  std::string text =
      value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kMaxExcerptBytes) {
    text.resize(kMaxExcerptBytes);
    text += "...";
  }
  return text;
}

}  // namespace octet
