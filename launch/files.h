// Whole text files.
#ifndef OCTET_LAUNCH_FILES_H_
#define OCTET_LAUNCH_FILES_H_

#include <string>

#include "absl/status/statusor.h"

namespace octet {

// NOT_FOUND or PERMISSION_DENIED name the path; "-" reads standard input.
absl::StatusOr<std::string> ReadTextFile(const std::string& path);

}  // namespace octet

#endif  // OCTET_LAUNCH_FILES_H_
