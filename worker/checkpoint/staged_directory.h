// A directory that appears whole or not at all: it is filled under another name
// beside its own (PATH.partial), synced and renamed.
//
// Several processes may fill it: one makes and commits it, the others write
// into staging_path() in between. What a killed process leaves behind has the
// other name, and goes when the same path is staged again.
#ifndef OCTET_WORKER_CHECKPOINT_STAGED_DIRECTORY_H_
#define OCTET_WORKER_CHECKPOINT_STAGED_DIRECTORY_H_

#include <string>

#include "absl/status/status.h"

namespace octet {

class StagedDirectory {
 public:
  explicit StagedDirectory(const std::string& path);

  const std::string& path() const { return path_; }
  const std::string& staging_path() const { return staging_path_; }

  // Makes an empty staging directory, and the parents. INVALID_ARGUMENT for an
  // empty path, ALREADY_EXISTS when `path` holds anything.
  absl::Status Begin() const;
  // Everything in the staging directory has been synced by who wrote it.
  absl::Status Commit() const;
  // Removes the staging directory. Errors are ignored: it is not the first.
  void Abandon() const;

 private:
  std::string path_;  // without a slash at the end
  std::string staging_path_;
};

}  // namespace octet

#endif  // OCTET_WORKER_CHECKPOINT_STAGED_DIRECTORY_H_
