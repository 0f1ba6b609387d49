// Where tests find their files.
#ifndef OCTET_TESTS_SUPPORT_DATA_H_
#define OCTET_TESTS_SUPPORT_DATA_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace octet::test {

// Path of a file of this repository, for example
// "tests/golden/tiny_e4/config.json".
std::string SourcePath(absl::string_view relative);

// Path of a built program, for example "bin/octet".
std::string BinaryPath(absl::string_view relative);

// Path of a file of the data folder beside the checkout (../shared/data, or
// $OCTET_DATA_DIR), for example "tokenizer/tokenizer.model"; nullopt when it is
// absent, as in a user's clone: the test then skips.
std::optional<std::string> DataPath(absl::string_view relative);

// A directory that exists, is empty and is removed when the object goes.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace octet::test

#endif  // OCTET_TESTS_SUPPORT_DATA_H_
