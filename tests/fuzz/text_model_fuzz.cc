// `.model` bytes from anywhere: they are refused with a sentence, or give a
// tokenizer that encodes and decodes any text.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/logging.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = octet::Tokenizer::Parse(bytes, "fuzz.model");
  if (!tokenizer.ok()) {
    OCTET_CHECK(octet::IsValidUtf8(tokenizer.status().message()));
    return 0;
  }
  // The file is its own text: it has the pieces in it.
  for (const absl::string_view text : {bytes, absl::string_view(" ab \xC3")}) {
    const std::vector<int32_t> ids = (*tokenizer)->Encode(text);
    const auto decoded = (*tokenizer)->Decode(ids);
    OCTET_CHECK(decoded.ok()) << decoded.status();
    OCTET_CHECK(octet::IsValidUtf8(*decoded));
  }
  return 0;
}
