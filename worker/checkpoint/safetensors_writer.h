// Writing safetensors files.
//
// The list of tensors comes first (the header holds every offset), then their
// bytes in any order and from any thread. The file is written under a temporary
// name in the same directory, synced, and renamed by Finish: a reader sees the
// old file or the whole new one. Without Finish nothing stays behind.
#ifndef OCTET_WORKER_CHECKPOINT_SAFETENSORS_WRITER_H_
#define OCTET_WORKER_CHECKPOINT_SAFETENSORS_WRITER_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/dtype.h"

namespace octet {

struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;

  int64_t num_elements() const;
  uint64_t num_bytes() const;
};

class SafetensorsWriter {
 public:
  // `metadata` becomes "__metadata__"; readers of the Hugging Face world expect
  // {"format": "pt"}.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(
      const std::string& path, const std::vector<TensorSpec>& tensors,
      const std::map<std::string, std::string>& metadata);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // Writes bytes [offset, offset + num_bytes) of tensors[index]. Thread-safe
  // for ranges that do not overlap.
  absl::Status Write(size_t index, uint64_t offset, const void* data,
                     uint64_t num_bytes);

  // Syncs and renames. FAILED_PRECONDITION unless every byte was written.
  absl::Status Finish();

 private:
  SafetensorsWriter(std::string path, std::string temp_path, int fd);
  absl::Status WriteHeader(const std::vector<TensorSpec>& tensors,
                           const std::map<std::string, std::string>& metadata);

  const std::string path_;
  const std::string temp_path_;
  int fd_;                            // -1 once finished
  std::vector<uint64_t> offsets_;     // of each tensor in the file, and the end
  std::atomic<uint64_t> written_{0};  // bytes of data
};

// Writes a small text file the same way: temporary name, sync, rename.
absl::Status WriteFileAtomically(const std::string& path,
                                 absl::string_view text);
// Makes renames inside `dir` last through a power cut.
absl::Status SyncDirectory(const std::string& dir);

}  // namespace octet

#endif  // OCTET_WORKER_CHECKPOINT_SAFETENSORS_WRITER_H_
