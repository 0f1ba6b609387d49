// The place of a run in its data, as text from a checkpoint: what is accepted
// survives being written and read again.
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "base/logging.h"
#include "client/data/position_text.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr uint64_t kFingerprint = 0x0123456789abcdef;
  const auto position = octet::ParsePosition(
      absl::string_view(reinterpret_cast<const char*>(data), size),
      kFingerprint);
  if (!position.ok()) {
    OCTET_CHECK(absl::IsInvalidArgument(position.status()));
    return 0;
  }
  const std::string text = octet::FormatPosition(*position, kFingerprint);
  const auto again = octet::ParsePosition(text, kFingerprint);
  OCTET_CHECK(again.ok()) << again.status();
  OCTET_CHECK(octet::FormatPosition(*again, kFingerprint) == text);
  return 0;
}
