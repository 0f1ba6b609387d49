#include "worker/model/config_reader.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "worker/model/json_file.h"

namespace octet {

const nlohmann::json* ConfigReader::Find(absl::string_view key) const {
  const auto it = root_.find(std::string(key));
  return it == root_.end() || it->is_null() ? nullptr : &*it;
}

bool ConfigReader::Has(absl::string_view key) const {
  return root_.contains(std::string(key));
}

bool ConfigReader::IsNull(absl::string_view key) const {
  return Has(key) && Find(key) == nullptr;
}

absl::Status ConfigReader::ReadFloat(absl::string_view key, float* out) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_number()) return Error(key, *value, "a number");
  const double wide = value->get<double>();
  // A cast of a double outside float's range is undefined.
  if (!(wide >= -std::numeric_limits<float>::max() &&
        wide <= std::numeric_limits<float>::max())) {
    return Error(key, *value, "a number of single precision");
  }
  *out = static_cast<float>(wide);
  return absl::OkStatus();
}

absl::Status ConfigReader::ReadBool(absl::string_view key, bool* out) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_boolean()) return Error(key, *value, "true or false");
  *out = value->get<bool>();
  return absl::OkStatus();
}

absl::Status ConfigReader::Error(absl::string_view key,
                                 const nlohmann::json& value,
                                 absl::string_view expected) const {
  return absl::InvalidArgumentError(absl::StrCat(name_, ": '", prefix_, key,
                                                 "' is ", JsonExcerpt(value),
                                                 ", expected ", expected));
}

absl::Status ConfigReader::Missing(absl::string_view key) const {
  return absl::InvalidArgumentError(
      absl::StrCat(name_, ": '", prefix_, key, "' is missing"));
}

absl::Status ConfigReader::ToInt64(absl::string_view key,
                                   const nlohmann::json& value, int64_t low,
                                   int64_t high, int64_t* out) const {
  if (!value.is_number_integer()) {
    return Error(key, value, "an integer");
  }
  const bool too_large =
      value.is_number_unsigned() &&
      value.get<uint64_t>() >
          static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (too_large || value.get<int64_t>() < low || value.get<int64_t>() > high) {
    return Error(key, value, absl::StrCat(low, " to ", high));
  }
  *out = value.get<int64_t>();
  return absl::OkStatus();
}

}  // namespace octet
