#include "worker/checkpoint/safetensors_writer.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "worker/checkpoint/safetensors.h"

namespace octet {
namespace {

absl::Status ErrnoError(int error, absl::string_view path,
                        absl::string_view what) {
  return absl::ErrnoToStatus(error, absl::StrCat(path, ": cannot ", what));
}

std::string TempPath(const std::string& path) {
  return absl::StrCat(path, ".tmp-", getpid());
}

absl::StatusOr<int> CreateFile(const std::string& path) {
  const int fd =
      open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoError(errno, path, "create file");
  return fd;
}

absl::Status PwriteFully(int fd, const std::string& path, uint64_t offset,
                         const char* data, uint64_t num_bytes) {
  while (num_bytes > 0) {
    const ssize_t put = pwrite(fd, data, num_bytes, static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return ErrnoError(errno, path, "write file");
    data += put;
    offset += static_cast<uint64_t>(put);
    num_bytes -= static_cast<uint64_t>(put);
  }
  return absl::OkStatus();
}

// Closes `fd` in every case.
absl::Status SyncAndRename(int fd, const std::string& temp_path,
                           const std::string& path) {
  const int synced = fsync(fd) == 0 ? 0 : errno;
  const int closed = close(fd) == 0 ? 0 : errno;
  if (synced != 0) return ErrnoError(synced, path, "sync file");
  if (closed != 0) return ErrnoError(closed, path, "close file");
  if (rename(temp_path.c_str(), path.c_str()) != 0) {
    return ErrnoError(errno, path, "rename file");
  }
  return SyncDirectory(std::filesystem::path(path).parent_path().string());
}

}  // namespace

int64_t TensorSpec::num_elements() const {
  int64_t elements = 1;
  for (int64_t dim : shape) elements *= dim;
  return elements;
}

uint64_t TensorSpec::num_bytes() const {
  return static_cast<uint64_t>(num_elements()) * SizeOf(dtype);
}

SafetensorsWriter::SafetensorsWriter(std::string path, std::string temp_path,
                                     int fd)
    : path_(std::move(path)), temp_path_(std::move(temp_path)), fd_(fd) {}

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    const std::string& path, const std::vector<TensorSpec>& tensors,
    const std::map<std::string, std::string>& metadata) {
  const std::string temp_path = TempPath(path);
  OCTET_ASSIGN_OR_RETURN(const int fd, CreateFile(temp_path));
  std::unique_ptr<SafetensorsWriter> writer(
      new SafetensorsWriter(path, temp_path, fd));
  OCTET_RETURN_IF_ERROR(writer->WriteHeader(tensors, metadata));
  return writer;
}

SafetensorsWriter::~SafetensorsWriter() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temp_path_.c_str());
}

absl::Status SafetensorsWriter::WriteHeader(
    const std::vector<TensorSpec>& tensors,
    const std::map<std::string, std::string>& metadata) {
  nlohmann::json root = nlohmann::json::object();
  if (!metadata.empty()) root["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const TensorSpec& tensor : tensors) {
    if (root.contains(tensor.name)) {
      return absl::InvalidArgumentError(absl::StrCat(
          path_, ": tensor '", tensor.name, "' is to be written twice"));
    }
    offsets_.push_back(offset);
    offset += tensor.num_bytes();
    root[tensor.name] = {{"dtype", std::string(SafetensorsName(tensor.dtype))},
                         {"shape", tensor.shape},
                         {"data_offsets", {offsets_.back(), offset}}};
  }
  offsets_.push_back(offset);

  std::string header = root.dump();
  header.append((8 - header.size() % 8) % 8, ' ');  // aligns the data
  const uint64_t header_bytes = header.size();
  header.insert(0, reinterpret_cast<const char*>(&header_bytes),
                sizeof(header_bytes));
  for (uint64_t& tensor_offset : offsets_) tensor_offset += header.size();
  return PwriteFully(fd_, path_, 0, header.data(), header.size());
}

absl::Status SafetensorsWriter::Write(size_t index, uint64_t offset,
                                      const void* data, uint64_t num_bytes) {
  const uint64_t begin = offsets_[index] + offset;
  if (begin + num_bytes > offsets_[index + 1]) {
    return absl::OutOfRangeError(absl::StrCat(path_, ": bytes ", offset, "+",
                                              num_bytes, " lie outside tensor ",
                                              index));
  }
  OCTET_RETURN_IF_ERROR(PwriteFully(fd_, path_, begin,
                                    static_cast<const char*>(data), num_bytes));
  written_ += num_bytes;
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Finish() {
  const uint64_t expected = offsets_.back() - offsets_.front();
  if (written_ != expected) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_, ": ", written_.load(),
                     " bytes of data were written, expected ", expected));
  }
  const absl::Status status =
      SyncAndRename(std::exchange(fd_, -1), temp_path_, path_);
  if (!status.ok()) unlink(temp_path_.c_str());
  return status;
}

absl::Status WriteFileAtomically(const std::string& path,
                                 absl::string_view text) {
  const std::string temp_path = TempPath(path);
  OCTET_ASSIGN_OR_RETURN(const int fd, CreateFile(temp_path));
  absl::Status status = PwriteFully(fd, temp_path, 0, text.data(), text.size());
  if (status.ok()) {
    status = SyncAndRename(fd, temp_path, path);
  } else {
    close(fd);
  }
  if (!status.ok()) unlink(temp_path.c_str());
  return status;
}

absl::Status SyncDirectory(const std::string& dir) {
  const std::string path = dir.empty() ? "." : dir;
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return ErrnoError(errno, path, "open directory");
  absl::Cleanup close_fd = [fd] { close(fd); };
  // Some file systems cannot sync a directory, and say so; renames are then as
  // durable as they get.
  if (fsync(fd) != 0 && errno != EINVAL) {
    return ErrnoError(errno, path, "sync directory");
  }
  return absl::OkStatus();
}

}  // namespace octet
