#include "worker/checkpoint/hf_checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/model/json_file.h"

namespace octet {
namespace {

constexpr uint64_t kMaxIndexBytes = 256 << 20;

bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

}  // namespace

absl::StatusOr<std::map<std::string, std::string>> ParseSafetensorsIndex(
    absl::string_view json, absl::string_view path) {
  OCTET_ASSIGN_OR_RETURN(const nlohmann::json root,
                         ParseJsonObject(json, path));
  const auto map = root.find("weight_map");
  if (map == root.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": 'weight_map' is missing"));
  }
  if (!map->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": 'weight_map' is ", JsonExcerpt(*map), ", expected an object"));
  }
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || !IsPlainFileName(file.get<std::string>())) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor ", JsonExcerpt(nlohmann::json(tensor)),
                       " is in file ", JsonExcerpt(file),
                       ", expected the name of a file in the same directory"));
    }
    files[tensor] = file.get<std::string>();
  }
  return files;
}

absl::StatusOr<std::unique_ptr<HfCheckpoint>> HfCheckpoint::Open(
    const std::string& dir) {
  OCTET_RETURN_IF_ERROR(CheckCheckpointDirectory(dir));
  std::unique_ptr<HfCheckpoint> checkpoint(new HfCheckpoint(dir));
  const std::string single = absl::StrCat(dir, "/model.safetensors");
  const std::string index = absl::StrCat(dir, "/model.safetensors.index.json");
  std::error_code error;
  if (std::filesystem::exists(single, error)) {
    OCTET_RETURN_IF_ERROR(checkpoint->OpenSingle(single));
  } else if (std::filesystem::exists(index, error)) {
    OCTET_RETURN_IF_ERROR(checkpoint->OpenIndex(index));
  } else {
    return absl::NotFoundError(
        absl::StrCat(dir,
                     ": holds neither model.safetensors nor "
                     "model.safetensors.index.json"));
  }
  for (const auto& [name, ref] : checkpoint->tensors_) {
    checkpoint->names_.push_back(name);
  }
  std::sort(checkpoint->names_.begin(), checkpoint->names_.end());
  return checkpoint;
}

absl::Status HfCheckpoint::OpenSingle(const std::string& path) {
  listing_path_ = path;
  OCTET_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> file,
                         SafetensorsFile::Open(path));
  for (const SafetensorsEntry& entry : file->entries()) {
    tensors_[entry.name] = {file.get(), &entry};
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status HfCheckpoint::OpenIndex(const std::string& path) {
  listing_path_ = path;
  OCTET_ASSIGN_OR_RETURN(const std::string text,
                         ReadSmallFile(path, kMaxIndexBytes));
  OCTET_ASSIGN_OR_RETURN(const auto weight_map,
                         ParseSafetensorsIndex(text, path));
  std::map<std::string, const SafetensorsFile*> opened;
  for (const auto& [tensor, file_name] : weight_map) {
    const SafetensorsFile*& file = opened[file_name];
    if (file == nullptr) {
      const std::string file_path = absl::StrCat(dir_, "/", file_name);
      std::error_code error;
      if (!std::filesystem::exists(file_path, error)) {
        return absl::NotFoundError(absl::StrCat(path, ": tensor '", tensor,
                                                "' is in '", file_name,
                                                "', which does not exist"));
      }
      OCTET_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> owned,
                             SafetensorsFile::Open(file_path));
      file = owned.get();
      files_.push_back(std::move(owned));
    }
    const SafetensorsEntry* entry = file->Find(tensor);
    if (entry == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(file->path(), ": tensor '", tensor,
                       "' is missing, expected from ", path));
    }
    tensors_[tensor] = {file, entry};
  }
  return absl::OkStatus();
}

std::optional<TensorRef> HfCheckpoint::Find(absl::string_view name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) return std::nullopt;
  return it->second;
}

uint64_t HfCheckpoint::bytes_read() const {
  uint64_t total = 0;
  for (const auto& file : files_) total += file->bytes_read();
  return total;
}

}  // namespace octet
