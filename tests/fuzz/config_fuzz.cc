// Any bytes as config.json. What is accepted must be valid and survive being
// written and read again.
#include <cstddef>
#include <cstdint>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "base/logging.h"
#include "worker/model/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = octet::ParseModelConfig(text, "config");
  if (!config.ok()) {
    const absl::string_view message = config.status().message();
    OCTET_CHECK(absl::StartsWith(message, "config: ")) << message;
    OCTET_CHECK(!absl::StrContains(message, "\n")) << message;
    return 0;
  }
  OCTET_CHECK(octet::ValidateModelConfig(*config, "config").ok());
  OCTET_CHECK(config->num_parameters() >= config->num_active_parameters());
  OCTET_CHECK(config->num_active_parameters() > 0);
  const auto again =
      octet::ParseModelConfig(octet::ModelConfigToJson(*config), "written");
  OCTET_CHECK(again.ok() && *again == *config) << again.status();
  return 0;
}
