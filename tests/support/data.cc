#include "tests/support/data.h"

#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/logging.h"

namespace octet::test {
std::string SourcePath(absl::string_view relative) {
  return absl::StrCat(OCTET_SOURCE_DIR, "/", relative);
}

std::string BinaryPath(absl::string_view relative) {
  return absl::StrCat(OCTET_BINARY_DIR, "/", relative);
}

std::optional<std::string> DataPath(absl::string_view relative) {
  const char* data_dir = std::getenv("OCTET_DATA_DIR");
  std::string path = absl::StrCat(
      data_dir ? std::string(data_dir) : SourcePath("../shared/data"), "/",
      relative);
  if (!std::filesystem::exists(path)) return std::nullopt;
  return path;
}

TempDir::TempDir() {
  std::string pattern =
      (std::filesystem::temp_directory_path() / "octet_test_XXXXXX").string();
  OCTET_CHECK(mkdtemp(pattern.data()) != nullptr) << "cannot make " << pattern;
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code
      ignored;  // a file that cannot be removed must not fail the test
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace octet::test
