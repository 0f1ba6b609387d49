// A registry of data sets: every entry is a data set or a sentence.
#include <cstddef>
#include <cstdint>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "base/logging.h"
#include "client/data/dataset_registry.h"
#include "client/data/lenient_json.h"

namespace octet {
namespace {

void CheckSentence(const absl::Status& status) {
  OCTET_CHECK(absl::IsInvalidArgument(status) || absl::IsNotFound(status))
      << status;
  OCTET_CHECK(!status.message().empty());
}

void Run(absl::string_view text) {
  const auto registry = DatasetRegistry::Parse(text, "info.json", "nowhere");
  if (!registry.ok()) {
    OCTET_CHECK(absl::StartsWith(registry.status().message(), "info.json"));
    return CheckSentence(registry.status());
  }
  const auto json = ParseLenientJsonObject(text, "info.json").value();
  OCTET_CHECK(json.comma_lines.size() == registry->warnings().size());
  for (const auto& item : json.value.items()) {
    for (const auto unnamed :
         {UnnamedColumns::kDefault, UnnamedColumns::kNone}) {
      const auto spec = registry->Find(item.key(), unnamed);
      if (!spec.ok()) {
        CheckSentence(spec.status());
        continue;
      }
      OCTET_CHECK(spec->name == item.key());
      OCTET_CHECK(!spec->files.empty());
    }
  }
  CheckSentence(
      registry->Find("no such data set", UnnamedColumns::kNone).status());
}

}  // namespace
}  // namespace octet

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  octet::Run(absl::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
