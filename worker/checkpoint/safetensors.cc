#include "worker/checkpoint/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "worker/model/json_file.h"

namespace octet {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little,
              "safetensors data is little-endian and is read as it lies");

struct DTypeInfo {
  absl::string_view name;
  int bytes;
  std::optional<DType> dtype;
};
constexpr DTypeInfo kDTypes[] = {
    {"F32", 4, DType::kF32},      {"BF16", 2, DType::kBF16},
    {"F16", 2, DType::kF16},      {"I32", 4, DType::kI32},
    {"I64", 8, DType::kI64},      {"U8", 1, DType::kU8},
    {"BOOL", 1, std::nullopt},    {"I8", 1, std::nullopt},
    {"F8_E5M2", 1, std::nullopt}, {"F8_E4M3", 1, std::nullopt},
    {"F8_E8M0", 1, std::nullopt}, {"I16", 2, std::nullopt},
    {"U16", 2, std::nullopt},     {"U32", 4, std::nullopt},
    {"U64", 8, std::nullopt},     {"F64", 8, std::nullopt},
};

const DTypeInfo* FindDType(absl::string_view name) {
  for (const DTypeInfo& info : kDTypes) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

// A tensor's name as it may stand in a sentence: the header may hold anything.
std::string Quoted(absl::string_view name) {
  const std::string text = JsonExcerpt(json(std::string(name)));
  return absl::StrCat("'", text.substr(1, text.size() - 2), "'");
}

// Bytes of a tensor of `shape`; anything above `limit` comes back as more than
// `limit`, so that hostile shapes overflow nothing.
uint64_t BytesOfShape(absl::Span<const int64_t> shape, uint64_t element_bytes,
                      uint64_t limit) {
  if (std::count(shape.begin(), shape.end(), 0) > 0) return 0;
  uint64_t bytes = element_bytes;
  for (int64_t dim : shape) {
    if (bytes > limit || static_cast<uint64_t>(dim) > limit / bytes) {
      return std::numeric_limits<uint64_t>::max();
    }
    bytes *= static_cast<uint64_t>(dim);
  }
  return bytes;
}

// Reads one tensor of a header, or says what is wrong with it.
class EntryParser {
 public:
  EntryParser(absl::string_view path, const std::string& name,
              const json& value, uint64_t data_bytes)
      : path_(path), name_(name), value_(value), data_bytes_(data_bytes) {}

  absl::StatusOr<SafetensorsEntry> Parse() const {
    if (!value_.is_object()) {
      return Error("is ", JsonExcerpt(value_), ", expected an object");
    }
    SafetensorsEntry entry;
    entry.name = name_;
    OCTET_RETURN_IF_ERROR(ParseDType(&entry));
    OCTET_RETURN_IF_ERROR(ParseShape(&entry));
    OCTET_RETURN_IF_ERROR(ParseOffsets(&entry));
    const uint64_t bytes =
        BytesOfShape(entry.shape, FindDType(entry.dtype)->bytes, data_bytes_);
    if (bytes != entry.num_bytes()) {
      return Error("has ", entry.num_bytes(), " bytes, which is not shape ",
                   ShapeToString(entry.shape), " of dtype ", entry.dtype);
    }
    return entry;
  }

 private:
  template <typename... Args>
  absl::Status Error(const Args&... args) const {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": tensor ", Quoted(name_), " ", args...));
  }

  absl::StatusOr<const json*> Field(const char* key) const {
    const auto it = value_.find(key);
    if (it == value_.end()) return Error("has no '", key, "'");
    return &*it;
  }

  absl::Status ParseDType(SafetensorsEntry* entry) const {
    OCTET_ASSIGN_OR_RETURN(const json* const field, Field("dtype"));
    if (!field->is_string() ||
        FindDType(field->get_ref<const std::string&>()) == nullptr) {
      return Error("has dtype ", JsonExcerpt(*field),
                   ", expected one that safetensors defines");
    }
    entry->dtype = field->get<std::string>();
    return absl::OkStatus();
  }

  absl::Status ParseShape(SafetensorsEntry* entry) const {
    OCTET_ASSIGN_OR_RETURN(const json* const field, Field("shape"));
    if (!field->is_array()) {
      return Error("has shape ", JsonExcerpt(*field), ", expected a list");
    }
    for (const json& dim : *field) {
      if (!dim.is_number_unsigned() ||
          dim.get<uint64_t>() >
              static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return Error("has shape ", JsonExcerpt(*field),
                     ", expected integers of at least 0");
      }
      entry->shape.push_back(dim.get<int64_t>());
    }
    return absl::OkStatus();
  }

  absl::Status ParseOffsets(SafetensorsEntry* entry) const {
    OCTET_ASSIGN_OR_RETURN(const json* const field, Field("data_offsets"));
    if (!field->is_array() || field->size() != 2 ||
        !(*field)[0].is_number_unsigned() ||
        !(*field)[1].is_number_unsigned()) {
      return Error("has data_offsets ", JsonExcerpt(*field),
                   ", expected two integers of at least 0");
    }
    entry->begin = (*field)[0].get<uint64_t>();
    entry->end = (*field)[1].get<uint64_t>();
    if (entry->begin > entry->end || entry->end > data_bytes_) {
      return Error("has data_offsets ", JsonExcerpt(*field),
                   ", expected a range inside the file's ", data_bytes_,
                   " bytes of data");
    }
    return absl::OkStatus();
  }

  const absl::string_view path_;
  const std::string& name_;
  const json& value_;
  const uint64_t data_bytes_;
};

absl::Status CheckMetadata(const json& metadata, absl::string_view path) {
  if (!metadata.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": '__metadata__' is ",
                                                   JsonExcerpt(metadata),
                                                   ", expected an object"));
  }
  for (const auto& [key, value] : metadata.items()) {
    if (!value.is_string()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": '__metadata__' has ", JsonExcerpt(value),
                       " under ", Quoted(key), ", expected a string"));
    }
  }
  return absl::OkStatus();
}

// The sorted entries must cover the data without holes or overlaps.
absl::Status CheckCover(const std::vector<SafetensorsEntry>& entries,
                        uint64_t data_bytes, absl::string_view path) {
  uint64_t covered = 0;
  for (const SafetensorsEntry& entry : entries) {
    if (entry.begin != covered) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": tensor ", Quoted(entry.name), " begins at byte ",
          entry.begin, " of the data, expected ", covered,
          " where the tensor before it ends"));
    }
    covered = entry.end;
  }
  if (covered != data_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": has ", data_bytes, " bytes of data, expected the ", covered,
        " that the header lists"));
  }
  return absl::OkStatus();
}

absl::Status ErrnoError(int error, absl::string_view path,
                        absl::string_view what) {
  return absl::ErrnoToStatus(error, absl::StrCat(path, ": cannot ", what));
}

// DATA_LOSS when the file ends first.
absl::Status ReadFully(int fd, const std::string& path, uint64_t offset,
                       uint64_t num_bytes, char* out) {
  while (num_bytes > 0) {
    const ssize_t got = pread(fd, out, num_bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoError(errno, path, "read file");
    if (got == 0) {
      return absl::DataLossError(absl::StrCat(
          path, ": ends at byte ", offset, ", expected ", num_bytes, " more"));
    }
    out += got;
    offset += static_cast<uint64_t>(got);
    num_bytes -= static_cast<uint64_t>(got);
  }
  return absl::OkStatus();
}

}  // namespace

std::optional<DType> SafetensorsDType(absl::string_view name) {
  const DTypeInfo* info = FindDType(name);
  return info == nullptr ? std::nullopt : info->dtype;
}

absl::string_view SafetensorsName(DType dtype) {
  for (const DTypeInfo& info : kDTypes) {
    if (info.dtype == dtype) return info.name;
  }
  return "unknown";
}

std::string ShapeToString(absl::Span<const int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensorsHeader(
    absl::string_view header, uint64_t data_bytes, absl::string_view path) {
  OCTET_ASSIGN_OR_RETURN(
      const json root, ParseJsonObject(header, absl::StrCat(path, ": header")));
  std::vector<SafetensorsEntry> entries;
  entries.reserve(root.size());
  for (const auto& [name, value] : root.items()) {
    if (name == "__metadata__") {
      OCTET_RETURN_IF_ERROR(CheckMetadata(value, path));
      continue;
    }
    OCTET_ASSIGN_OR_RETURN(SafetensorsEntry entry,
                           EntryParser(path, name, value, data_bytes).Parse());
    entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(),
            [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
              return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
            });
  OCTET_RETURN_IF_ERROR(CheckCover(entries, data_bytes, path));
  return entries;
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(
    const std::string& path) {
  // O_NONBLOCK: opening a FIFO would wait for a writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return ErrnoError(errno, path, "open file");
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile(path, fd));
  OCTET_RETURN_IF_ERROR(file->ReadHeader());
  return file;
}

SafetensorsFile::~SafetensorsFile() { close(fd_); }

absl::Status SafetensorsFile::ReadHeader() {
  struct stat info;
  if (fstat(fd_, &info) != 0) return ErrnoError(errno, path_, "read file");
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": not a regular file"));
  }
  const uint64_t file_bytes = static_cast<uint64_t>(info.st_size);
  uint64_t header_bytes = 0;
  if (file_bytes < sizeof(header_bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": file has ", file_bytes,
                     " bytes, expected at least 8 for a header length"));
  }
  OCTET_RETURN_IF_ERROR(ReadFully(fd_, path_, 0, sizeof(header_bytes),
                                  reinterpret_cast<char*>(&header_bytes)));
  const uint64_t rest = file_bytes - sizeof(header_bytes);
  const uint64_t limit = std::min(rest, kMaxSafetensorsHeaderBytes);
  if (header_bytes > limit) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": header length is ", header_bytes,
                     " bytes, expected at most ", limit));
  }
  std::string header(header_bytes, '\0');
  OCTET_RETURN_IF_ERROR(
      ReadFully(fd_, path_, sizeof(header_bytes), header_bytes, header.data()));
  OCTET_ASSIGN_OR_RETURN(
      entries_, ParseSafetensorsHeader(header, rest - header_bytes, path_));
  data_begin_ = sizeof(header_bytes) + header_bytes;
  for (size_t i = 0; i < entries_.size(); ++i) by_name_[entries_[i].name] = i;
  return absl::OkStatus();
}

const SafetensorsEntry* SafetensorsFile::Find(absl::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &entries_[it->second];
}

absl::Status SafetensorsFile::Read(const SafetensorsEntry& entry,
                                   uint64_t offset, uint64_t num_bytes,
                                   void* out) const {
  if (offset > entry.num_bytes() || num_bytes > entry.num_bytes() - offset) {
    return absl::OutOfRangeError(
        absl::StrCat(path_, ": bytes ", offset, "+", num_bytes, " of tensor ",
                     Quoted(entry.name), ", which has ", entry.num_bytes()));
  }
  OCTET_RETURN_IF_ERROR(ReadFully(fd_, path_,
                                  data_begin_ + entry.begin + offset, num_bytes,
                                  static_cast<char*>(out)));
  bytes_read_ += num_bytes;
  return absl::OkStatus();
}

void SafetensorsFile::Prefetch(const SafetensorsEntry& entry, uint64_t offset,
                               uint64_t num_bytes) const {
  // Advice only: a file system that ignores it costs nothing but time.
  posix_fadvise(fd_, static_cast<off_t>(data_begin_ + entry.begin + offset),
                static_cast<off_t>(num_bytes), POSIX_FADV_WILLNEED);
}

}  // namespace octet
