// All examples of a run, in an unnamed temporary file, with their places in
// memory (8 bytes each): any of them can be read at once, however many there
// are. Not thread-safe.
#ifndef OCTET_CLIENT_DATA_EXAMPLE_STORE_H_
#define OCTET_CLIENT_DATA_EXAMPLE_STORE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/data/example.h"

namespace octet {

class ExampleStore {
 public:
  // The file is in `dir`, and is gone when the store or the process is.
  static absl::StatusOr<std::unique_ptr<ExampleStore>> Create(
      const std::string& dir);
  ~ExampleStore();
  ExampleStore(const ExampleStore&) = delete;
  ExampleStore& operator=(const ExampleStore&) = delete;

  // A full disk is the error.
  absl::Status Append(const Example& example);
  // REQUIRES: 0 <= index < size().
  absl::StatusOr<Example> Get(int64_t index);

  int64_t size() const { return static_cast<int64_t>(offsets_.size()); }
  // Of everything appended, in its order: stores with equal contents have
  // equal fingerprints. FNV-1a.
  uint64_t fingerprint() const { return fingerprint_; }

 private:
  ExampleStore(std::string dir, int fd) : dir_(std::move(dir)), fd_(fd) {}
  absl::Status Flush();

  const std::string dir_;
  const int fd_;
  std::vector<int64_t> offsets_;  // in int32 words
  std::vector<int32_t> tail_;     // not written yet
  int64_t written_ = 0;           // words in the file
  uint64_t fingerprint_ = 0xCBF29CE484222325;
};

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_EXAMPLE_STORE_H_
