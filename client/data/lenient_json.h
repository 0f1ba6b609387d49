// JSON files that people write by hand: strict but for trailing commas.
#ifndef OCTET_CLIENT_DATA_LENIENT_JSON_H_
#define OCTET_CLIENT_DATA_LENIENT_JSON_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace octet {

struct LenientJson {
  nlohmann::json value;  // an object
  // Where a comma stood before a closing bracket.
  std::vector<int64_t> comma_lines;
};

// InvalidArgument, beginning with `name`, for what is no JSON object, for a key
// that an object has twice and for more than 32 levels.
absl::StatusOr<LenientJson> ParseLenientJsonObject(absl::string_view text,
                                                   absl::string_view name);

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_LENIENT_JSON_H_
