#include "worker/checkpoint/staged_directory.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/checkpoint/safetensors_writer.h"

namespace octet {
namespace {

namespace fs = std::filesystem;

absl::Status SystemError(const std::string& path, absl::string_view what,
                         const std::error_code& error) {
  return absl::FailedPreconditionError(
      absl::StrCat(path, ": cannot ", what, ": ", error.message()));
}

std::string WithoutSlash(const std::string& path) {
  const fs::path clean = fs::path(path).lexically_normal();
  return (clean.has_filename() ? clean : clean.parent_path()).string();
}

}  // namespace

StagedDirectory::StagedDirectory(const std::string& path)
    : path_(WithoutSlash(path)), staging_path_(path_ + ".partial") {}

absl::Status StagedDirectory::Begin() const {
  if (path_.empty()) {
    return absl::InvalidArgumentError(
        "path is empty, expected a directory to write");
  }
  if (const size_t at = path_.find('\0'); at != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        "path has a zero at byte ", at, ", expected the name of a directory"));
  }
  std::error_code error;
  if (fs::exists(path_, error) &&
      !(fs::is_directory(path_, error) && fs::is_empty(path_, error))) {
    return absl::AlreadyExistsError(
        absl::StrCat(path_, ": already exists and is not an empty directory"));
  }
  const fs::path parent = fs::path(path_).parent_path();
  if (!parent.empty()) {
    fs::create_directories(parent, error);
    if (error) return SystemError(parent.string(), "create directory", error);
  }
  fs::remove_all(staging_path_, error);
  if (error) return SystemError(staging_path_, "remove", error);
  fs::create_directory(staging_path_, error);
  if (error) return SystemError(staging_path_, "create directory", error);
  return absl::OkStatus();
}

absl::Status StagedDirectory::Commit() const {
  OCTET_RETURN_IF_ERROR(SyncDirectory(staging_path_));
  std::error_code error;
  fs::rename(staging_path_, path_, error);
  if (error) return SystemError(path_, "rename the finished directory", error);
  return SyncDirectory(fs::path(path_).parent_path().string());
}

void StagedDirectory::Abandon() const {
  std::error_code ignored;
  fs::remove_all(staging_path_, ignored);
}

}  // namespace octet
