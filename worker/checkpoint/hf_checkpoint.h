// A checkpoint directory in Hugging Face's layout: model.safetensors, or
// model.safetensors.index.json with the shards it names.
//
// Opening reads every header and no tensor. Immutable and thread-safe after
// Open.
#ifndef OCTET_WORKER_CHECKPOINT_HF_CHECKPOINT_H_
#define OCTET_WORKER_CHECKPOINT_HF_CHECKPOINT_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/checkpoint/safetensors.h"

namespace octet {

// One tensor and the file it is in; both live as long as the HfCheckpoint.
struct TensorRef {
  const SafetensorsFile* file = nullptr;
  const SafetensorsEntry* entry = nullptr;
};

// The "weight_map" of an index: tensor name -> file name. INVALID_ARGUMENT when
// it is not one, or names a file outside the directory.
absl::StatusOr<std::map<std::string, std::string>> ParseSafetensorsIndex(
    absl::string_view json, absl::string_view path);

class HfCheckpoint {
 public:
  // NOT_FOUND when there is neither file, or a shard is missing;
  // INVALID_ARGUMENT when a file is not what it should be. A single
  // model.safetensors wins over an index, as in transformers.
  static absl::StatusOr<std::unique_ptr<HfCheckpoint>> Open(
      const std::string& dir);

  const std::string& dir() const { return dir_; }
  // The file that lists the tensors: the index, or the only file.
  const std::string& listing_path() const { return listing_path_; }

  std::optional<TensorRef> Find(absl::string_view name) const;
  // By rising name.
  const std::vector<std::string>& names() const { return names_; }
  const std::vector<std::unique_ptr<SafetensorsFile>>& files() const {
    return files_;
  }
  // Bytes of tensor data read so far, over all files.
  uint64_t bytes_read() const;

 private:
  explicit HfCheckpoint(std::string dir) : dir_(std::move(dir)) {}
  absl::Status OpenSingle(const std::string& path);
  absl::Status OpenIndex(const std::string& path);

  const std::string dir_;
  std::string listing_path_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  absl::flat_hash_map<std::string, TensorRef> tensors_;
  std::vector<std::string> names_;
};

}  // namespace octet

#endif  // OCTET_WORKER_CHECKPOINT_HF_CHECKPOINT_H_
