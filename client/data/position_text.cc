#include "client/data/position_text.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace octet {
namespace {

using nlohmann::json;

std::string Hex(uint64_t value) {
  return absl::StrCat(absl::Hex(value, absl::kZeroPad16));
}

absl::Status NotAPosition(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(
      "the data position ", what, ", expected what an earlier run has saved"));
}

// The member `key`: a whole number that is at least `least`.
absl::Status ReadNumber(const json& object, const char* key, int64_t least,
                        int64_t& value) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_integer() ||
      (found->is_number_unsigned() && found->get<uint64_t>() >> 63) ||
      found->get<int64_t>() < least) {
    return NotAPosition(absl::StrCat("has no '", key, "' that is a number"));
  }
  value = found->get<int64_t>();
  return absl::OkStatus();
}

absl::Status ReadMix(const json& object, MixPosition& mix) {
  OCTET_RETURN_IF_ERROR(ReadNumber(object, "draws", 0, mix.draws));
  const auto datasets = object.find("datasets");
  if (datasets == object.end() || !datasets->is_array()) {
    return NotAPosition("has no list 'datasets'");
  }
  for (const json& dataset : *datasets) {
    if (!dataset.is_object()) return NotAPosition("has a broken data set");
    DatasetPosition position;
    int64_t ended = 0;
    OCTET_RETURN_IF_ERROR(ReadNumber(dataset, "file", 0, position.file));
    OCTET_RETURN_IF_ERROR(
        ReadNumber(dataset, "offset", -1, position.bytes.offset));
    OCTET_RETURN_IF_ERROR(ReadNumber(dataset, "line", 1, position.bytes.line));
    OCTET_RETURN_IF_ERROR(
        ReadNumber(dataset, "documents", 0, position.documents));
    OCTET_RETURN_IF_ERROR(ReadNumber(dataset, "ended", 0, ended));
    mix.datasets.push_back(position);
    mix.ended.push_back(ended != 0);
  }
  return absl::OkStatus();
}

}  // namespace

std::string FormatPosition(const FeedPosition& position, uint64_t fingerprint) {
  json datasets = json::array();
  const MixPosition& mix = position.stream.mix;
  for (size_t i = 0; i < mix.datasets.size(); ++i) {
    const DatasetPosition& dataset = mix.datasets[i];
    datasets.push_back({{"file", dataset.file},
                        {"offset", dataset.bytes.offset},
                        {"line", dataset.bytes.line},
                        {"documents", dataset.documents},
                        {"ended", mix.ended[i] ? 1 : 0}});
  }
  return json({{"data", Hex(fingerprint)},
               {"epoch", position.epoch},
               {"index", position.index},
               {"window", position.window},
               {"window_index", position.window_index},
               {"given", position.stream.given},
               {"draws", mix.draws},
               {"datasets", std::move(datasets)}})
      .dump();
}

absl::StatusOr<FeedPosition> ParsePosition(absl::string_view text,
                                           uint64_t fingerprint) {
  const json object = json::parse(text.begin(), text.end(), nullptr,
                                  /*allow_exceptions=*/false);
  if (!object.is_object()) return NotAPosition("is not a JSON object");
  const auto data = object.find("data");
  if (data == object.end() || !data->is_string()) {
    return NotAPosition("has no 'data'");
  }
  if (*data != Hex(fingerprint)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the data position is of the data ", data->dump(),
                     ", expected ", Hex(fingerprint),
                     ": resume with the data sets, template, lengths and "
                     "seed that the run began with"));
  }
  FeedPosition position;
  OCTET_RETURN_IF_ERROR(ReadNumber(object, "epoch", 0, position.epoch));
  OCTET_RETURN_IF_ERROR(ReadNumber(object, "index", 0, position.index));
  OCTET_RETURN_IF_ERROR(ReadNumber(object, "window", 0, position.window));
  OCTET_RETURN_IF_ERROR(
      ReadNumber(object, "window_index", 0, position.window_index));
  OCTET_RETURN_IF_ERROR(ReadNumber(object, "given", 0, position.stream.given));
  OCTET_RETURN_IF_ERROR(ReadMix(object, position.stream.mix));
  return position;
}

}  // namespace octet
