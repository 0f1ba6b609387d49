// Reading safetensors files: a little-endian u64 header length, a JSON header
// {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ...}, then the
// tensors' bytes, row-major.
//
// Format: https://huggingface.co/docs/safetensors (checked in full: no
// overlaps, no holes, no trailing bytes, no name twice). Every error is one
// sentence that begins with the file's path.
#ifndef OCTET_WORKER_CHECKPOINT_SAFETENSORS_H_
#define OCTET_WORKER_CHECKPOINT_SAFETENSORS_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/dtype.h"

namespace octet {

// The file format's own limit on the header.
inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

struct SafetensorsEntry {
  std::string name;
  std::string dtype;           // as in the file: "BF16", "F32", "I64", ...
  std::vector<int64_t> shape;  // any number of dimensions; each >= 0
  uint64_t begin = 0;          // bytes from the start of the data
  uint64_t end = 0;

  uint64_t num_bytes() const { return end - begin; }
};

// Ours for "F32", "BF16", "F16", "I32", "I64" and "U8"; nullopt for the others.
std::optional<DType> SafetensorsDType(absl::string_view name);
// "F32", "BF16", ...
absl::string_view SafetensorsName(DType dtype);

// "[2, 3]"
std::string ShapeToString(absl::Span<const int64_t> shape);

// The tensors a header lists, by rising offset. `data_bytes` is what the file
// has after the header. INVALID_ARGUMENT for anything the format forbids.
absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensorsHeader(
    absl::string_view header, uint64_t data_bytes, absl::string_view path);

// One open file. The data is read when asked for (pread), not mapped, so that a
// file that shrinks or a disk that fails under us is a Status, not SIGBUS, and
// resident memory is what the caller holds. Const methods are thread-safe.
class SafetensorsFile {
 public:
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(
      const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  // By rising offset.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  // nullptr when the file has no such tensor.
  const SafetensorsEntry* Find(absl::string_view name) const;

  // Copies bytes [offset, offset + num_bytes) of the tensor to `out`. The range
  // must lie inside the tensor (OUT_OF_RANGE). DATA_LOSS when the file has
  // become shorter than it was when opened.
  absl::Status Read(const SafetensorsEntry& entry, uint64_t offset,
                    uint64_t num_bytes, void* out) const;
  // Tells the system that the range will be read soon. Never fails.
  void Prefetch(const SafetensorsEntry& entry, uint64_t offset,
                uint64_t num_bytes) const;

  // Bytes of tensor data that Read has copied so far.
  uint64_t bytes_read() const { return bytes_read_; }

 private:
  SafetensorsFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  absl::Status ReadHeader();

  const std::string path_;
  const int fd_;
  uint64_t data_begin_ = 0;  // file offset of the first tensor's bytes
  std::vector<SafetensorsEntry> entries_;
  absl::flat_hash_map<std::string, size_t> by_name_;
  mutable std::atomic<uint64_t> bytes_read_{0};
};

}  // namespace octet

#endif  // OCTET_WORKER_CHECKPOINT_SAFETENSORS_H_
