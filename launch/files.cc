#include "launch/files.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"

namespace octet {

absl::StatusOr<std::string> ReadTextFile(const std::string& path) {
  if (path == "-")
    return std::string(std::istreambuf_iterator<char>(std::cin), {});
  std::ifstream file(path, std::ios::binary);
  if (!file)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  // Not by a stream's iterators: they throw at a directory.
  std::ostringstream text;
  errno = 0;
  if (file.peek() != EOF) text << file.rdbuf();
  if (file.bad())
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  return std::move(text).str();
}

}  // namespace octet
