// Reading small JSON files that may be wrong or hostile.
//
// Every error is one sentence that begins with the file's name. Thread-safe:
// no state.
#ifndef OCTET_WORKER_MODEL_JSON_FILE_H_
#define OCTET_WORKER_MODEL_JSON_FILE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace octet {

// The JSON object that `text` is. INVALID_ARGUMENT when it is not JSON, not
// UTF-8, not an object, names a key twice in one object, or nests deeper than
// any checkpoint file does (32).
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text,
                                               absl::string_view name);

// The whole file. NOT_FOUND and PERMISSION_DENIED as the system says;
// INVALID_ARGUMENT for a file larger than `max_bytes` or not a regular one.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path,
                                          uint64_t max_bytes);

// NOT_FOUND, PERMISSION_DENIED... unless `dir` is a directory that may be read.
absl::Status CheckCheckpointDirectory(const std::string& dir);

// `value` as it stands in the file, shortened for a sentence.
std::string JsonExcerpt(const nlohmann::json& value);

}  // namespace octet

#endif  // OCTET_WORKER_MODEL_JSON_FILE_H_
