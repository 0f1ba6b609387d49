// Typed access to the keys of one config file, with the sentence for each way
// a value can be wrong.
//
// A key that is absent and a key that is null are the same to Find:
// transformers writes null for "use the default".
#ifndef OCTET_WORKER_MODEL_CONFIG_READER_H_
#define OCTET_WORKER_MODEL_CONFIG_READER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace octet {

class ConfigReader {
 public:
  // `root` is an object and must outlive the reader. `name` leads every
  // sentence; `prefix` ("rope_parameters.") leads every key in it.
  ConfigReader(const nlohmann::json& root, absl::string_view name,
               absl::string_view prefix = "")
      : root_(root), name_(name), prefix_(prefix) {}

  const std::string& name() const { return name_; }

  // The value, or nullptr when absent or null.
  const nlohmann::json* Find(absl::string_view key) const;
  bool Has(absl::string_view key) const;     // present, be it null
  bool IsNull(absl::string_view key) const;  // present and null

  // `*out` stays as it is when the key is absent. Null is an error in ReadInt
  // and the same as absent in the others.
  template <typename Int>
  absl::Status ReadInt(absl::string_view key, int64_t low, int64_t high,
                       Int* out) const {
    if (IsNull(key)) return Error(key, nullptr, "an integer");
    return ReadIntOrNull(key, low, high, out);
  }
  template <typename Int>
  absl::Status ReadIntOrNull(absl::string_view key, int64_t low, int64_t high,
                             Int* out) const {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return absl::OkStatus();
    return ToInt(key, *value, low, high, out);
  }
  absl::Status ReadFloat(absl::string_view key, float* out) const;
  absl::Status ReadBool(absl::string_view key, bool* out) const;

  // `value` as an integer in [low, high].
  template <typename Int>
  absl::Status ToInt(absl::string_view key, const nlohmann::json& value,
                     int64_t low, int64_t high, Int* out) const {
    int64_t wide = 0;
    absl::Status status = ToInt64(key, value, low, high, &wide);
    if (status.ok()) *out = static_cast<Int>(wide);
    return status;
  }

  // "NAME: 'KEY' is VALUE, expected EXPECTED"
  absl::Status Error(absl::string_view key, const nlohmann::json& value,
                     absl::string_view expected) const;
  // "NAME: 'KEY' is missing"
  absl::Status Missing(absl::string_view key) const;

 private:
  absl::Status ToInt64(absl::string_view key, const nlohmann::json& value,
                       int64_t low, int64_t high, int64_t* out) const;

  const nlohmann::json& root_;
  const std::string name_;
  const std::string prefix_;
};

}  // namespace octet

#endif  // OCTET_WORKER_MODEL_CONFIG_READER_H_
