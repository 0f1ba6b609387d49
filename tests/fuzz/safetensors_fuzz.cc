// Any bytes as a safetensors file, or (when they begin with '{') as the index
// of a sharded checkpoint. What is accepted must hold what the reader promises.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "worker/checkpoint/hf_checkpoint.h"
#include "worker/checkpoint/safetensors.h"

namespace octet {
namespace {

void CheckSentence(const absl::Status& status, absl::string_view path) {
  OCTET_CHECK(absl::StartsWith(status.message(), absl::StrCat(path, ": ")))
      << status;
  OCTET_CHECK(!absl::StrContains(status.message(), "\n")) << status;
}

void FuzzIndex(absl::string_view text) {
  const auto files = ParseSafetensorsIndex(text, "index");
  if (!files.ok()) return CheckSentence(files.status(), "index");
  for (const auto& [tensor, file] : *files) {
    OCTET_CHECK(!file.empty() && !absl::StrContains(file, "/")) << file;
  }
}

void FuzzFile(const uint8_t* data, size_t size) {
  static const int fd = memfd_create("fuzz", 0);
  OCTET_CHECK(fd >= 0 && ftruncate(fd, 0) == 0 &&
              pwrite(fd, data, size, 0) == static_cast<ssize_t>(size));
  const std::string path = absl::StrCat("/proc/self/fd/", fd);
  const auto file = SafetensorsFile::Open(path);
  if (!file.ok()) return CheckSentence(file.status(), path);
  uint64_t end = 0;
  for (const SafetensorsEntry& entry : (*file)->entries()) {
    OCTET_CHECK(entry.begin == end) << entry.name;
    end = entry.end;
    std::string bytes(entry.num_bytes(), '\0');
    const absl::Status status =
        (*file)->Read(entry, 0, bytes.size(), bytes.data());
    OCTET_CHECK(status.ok()) << status;
  }
  OCTET_CHECK(end + 8 <= size) << end;
}

}  // namespace
}  // namespace octet

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 0 && data[0] == '{') {
    octet::FuzzIndex({reinterpret_cast<const char*>(data), size});
  } else {
    octet::FuzzFile(data, size);
  }
  return 0;
}
