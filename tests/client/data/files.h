// Small files for the tests of client/data.
#ifndef OCTET_TESTS_CLIENT_DATA_FILES_H_
#define OCTET_TESTS_CLIENT_DATA_FILES_H_

#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "tests/support/data.h"
#include "text/tokenizer.h"

namespace octet::test {

// Writes DIR/NAME and returns its path.
inline std::string WriteFile(const TempDir& dir, absl::string_view name,
                             absl::string_view bytes) {
  const std::string path = absl::StrCat(dir.path(), "/", name);
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

// The quickstart model's, which is committed.
inline std::unique_ptr<Tokenizer> SmallTokenizer() {
  return Tokenizer::Load(SourcePath("launch/quickstart_model/tokenizer.model"))
      .value();
}

}  // namespace octet::test

#endif  // OCTET_TESTS_CLIENT_DATA_FILES_H_
