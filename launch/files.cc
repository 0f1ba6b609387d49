#include "launch/files.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>

#include "absl/strings/str_cat.h"

namespace octet {

absl::StatusOr<std::string> ReadTextFile(const std::string& path) {
  if (path == "-")
    return std::string(std::istreambuf_iterator<char>(std::cin), {});
  std::ifstream file(path, std::ios::binary);
  if (!file)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (file.bad())
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  return text;
}

}  // namespace octet
