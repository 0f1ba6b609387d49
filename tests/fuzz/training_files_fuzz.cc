// Any bytes as a training state's manifest.json and as a PEFT adapter's
// adapter_config.json. What is accepted must survive being written and read
// again, and a manifest's pieces must make up their parameters.
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "base/logging.h"
#include "worker/checkpoint/peft_adapter.h"
#include "worker/checkpoint/training_manifest.h"

namespace {

void CheckSentence(const absl::Status& status) {
  OCTET_CHECK(absl::StartsWith(status.message(), "file: ")) << status.message();
  OCTET_CHECK(!absl::StrContains(status.message(), "\n")) << status.message();
}

void CheckManifest(const octet::TrainingManifest& manifest) {
  for (const octet::StateParameter& parameter : manifest.parameters) {
    int64_t num_elements = 1, next = 0;
    for (int64_t dim : parameter.shape) num_elements *= dim;
    for (const octet::StatePiece& piece : parameter.pieces) {
      OCTET_CHECK(piece.begin == next && piece.end > piece.begin);
      OCTET_CHECK(piece.file >= 0 &&
                  piece.file < static_cast<int>(manifest.files.size()));
      next = piece.end;
    }
    OCTET_CHECK(next == num_elements);
  }
  const auto again = octet::ParseTrainingManifest(
      octet::TrainingManifestToJson(manifest), "written");
  OCTET_CHECK(again.ok() && *again == manifest) << again.status();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const auto manifest = octet::ParseTrainingManifest(text, "file");
  if (manifest.ok()) {
    CheckManifest(*manifest);
  } else {
    CheckSentence(manifest.status());
  }
  const auto adapter = octet::ParseAdapterConfig(text, "file");
  if (!adapter.ok()) {
    CheckSentence(adapter.status());
    return 0;
  }
  const auto again = octet::ParseAdapterConfig(
      octet::AdapterConfigToJson(*adapter), "written");
  OCTET_CHECK(again.ok() && *again == *adapter) << again.status();
  return 0;
}
