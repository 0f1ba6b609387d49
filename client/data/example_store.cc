#include "client/data/example_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace octet {
namespace {

constexpr size_t kTailWords = 1 << 18;  // 1 MiB a write
constexpr uint64_t kFnvPrime = 0x100000001B3;

absl::Status FileError(int error, const std::string& dir,
                       absl::string_view what) {
  return absl::ErrnoToStatus(
      error, absl::StrCat(dir, ": cannot ", what,
                          " the temporary file of tokenised examples"));
}

// Of `count` words at word `offset`, all of them.
template <typename Transfer>
absl::Status TransferAll(Transfer transfer, const std::string& dir,
                         absl::string_view what, int64_t offset, size_t count) {
  const size_t num_bytes = count * sizeof(int32_t);
  size_t done = 0;
  while (done < num_bytes) {
    const ssize_t moved =
        transfer(done, num_bytes - done,
                 static_cast<off_t>(offset * sizeof(int32_t) + done));
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0) return FileError(errno, dir, what);
    if (moved == 0) return FileError(EIO, dir, what);
    done += static_cast<size_t>(moved);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExampleStore>> ExampleStore::Create(
    const std::string& dir) {
  std::string path = absl::StrCat(dir, "/octet-examples-XXXXXX");
  const int fd = mkostemp(path.data(), O_CLOEXEC);
  if (fd < 0) return FileError(errno, dir, "create");
  unlink(path.c_str());
  return absl::WrapUnique(new ExampleStore(dir, fd));
}

ExampleStore::~ExampleStore() { close(fd_); }

// A record: the number of tokens and of starts, the starts, and the tokens, ~id
// for one that is not learnt.
absl::Status ExampleStore::Append(const Example& example) {
  offsets_.push_back(written_ + static_cast<int64_t>(tail_.size()));
  const size_t begin = tail_.size();
  tail_.push_back(static_cast<int32_t>(example.token_ids.size()));
  tail_.push_back(static_cast<int32_t>(example.starts.size()));
  tail_.insert(tail_.end(), example.starts.begin(), example.starts.end());
  for (size_t i = 0; i < example.token_ids.size(); ++i) {
    const int32_t id = example.token_ids[i];
    tail_.push_back(example.labels[i] == kIgnoredLabel ? ~id : id);
  }
  for (size_t i = begin; i < tail_.size(); ++i) {
    fingerprint_ = (fingerprint_ ^ static_cast<uint32_t>(tail_[i])) * kFnvPrime;
  }
  return tail_.size() < kTailWords ? absl::OkStatus() : Flush();
}

absl::StatusOr<Example> ExampleStore::Get(int64_t index) {
  OCTET_RETURN_IF_ERROR(Flush());
  const auto read = [this](int64_t offset, std::vector<int32_t>& words) {
    return TransferAll(
        [&](size_t done, size_t left, off_t at) {
          return pread(fd_, reinterpret_cast<char*>(words.data()) + done, left,
                       at);
        },
        dir_, "read", offset, words.size());
  };
  std::vector<int32_t> counts(2);
  OCTET_RETURN_IF_ERROR(read(offsets_[index], counts));
  std::vector<int32_t> words(static_cast<size_t>(counts[0]) + counts[1]);
  OCTET_RETURN_IF_ERROR(read(offsets_[index] + 2, words));
  Example example;
  example.starts.assign(words.begin(), words.begin() + counts[1]);
  for (auto word = words.begin() + counts[1]; word != words.end(); ++word) {
    example.token_ids.push_back(*word < 0 ? ~*word : *word);
    example.labels.push_back(*word < 0 ? kIgnoredLabel : *word);
  }
  return example;
}

absl::Status ExampleStore::Flush() {
  if (tail_.empty()) return absl::OkStatus();
  OCTET_RETURN_IF_ERROR(TransferAll(
      [this](size_t done, size_t left, off_t at) {
        return pwrite(fd_, reinterpret_cast<const char*>(tail_.data()) + done,
                      left, at);
      },
      dir_, "write", written_, tail_.size()));
  written_ += static_cast<int64_t>(tail_.size());
  tail_.clear();
  return absl::OkStatus();
}

}  // namespace octet
