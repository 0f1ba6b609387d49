// A data file of any type: reading ends, errors are sentences that name the
// file, reading can be taken up after every row, and rows become documents or
// sentences.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "base/logging.h"
#include "client/data/document.h"
#include "client/data/row_reader.h"
#include "text/utf8.h"

namespace octet {
namespace {

constexpr const char* kExtensions[] = {".txt", ".jsonl", ".json", ".csv"};

void CheckSentence(const absl::Status& status) {
  OCTET_CHECK(absl::IsInvalidArgument(status) || absl::IsDataLoss(status))
      << status;
  OCTET_CHECK(!status.message().empty());
}

void CheckDocuments(const nlohmann::json& fields) {
  DatasetSpec alpaca;
  alpaca.columns.history = "history";
  alpaca.columns.system = "system";
  DatasetSpec sharegpt;
  sharegpt.format = RowFormat::kShareGpt;
  DatasetSpec text;
  text.columns.prompt = "text";
  for (const auto& document : {MakeDocument(fields, alpaca, Stage::kSft),
                               MakeDocument(fields, sharegpt, Stage::kSft),
                               MakeDocument(fields, text, Stage::kPretrain)}) {
    if (!document.ok()) {
      CheckSentence(document.status());
      continue;
    }
    const auto& messages = document->messages;
    if (messages.empty()) continue;
    const size_t first = messages[0].role == "system" ? 1 : 0;
    OCTET_CHECK(messages.size() > first && (messages.size() - first) % 2 == 0);
    for (size_t i = first; i < messages.size(); ++i) {
      OCTET_CHECK(messages[i].role ==
                  ((i - first) % 2 == 0 ? "user" : "assistant"));
    }
  }
}

// What Next gives from here on: a line for each row or error.
std::vector<std::string> ReadAll(RowReader& reader,
                                 std::vector<BytePosition>* places) {
  std::vector<std::string> outcomes;
  while (true) {
    if (places != nullptr) places->push_back(reader.position());
    const auto row = reader.Next();
    if (row.ok() && !row->has_value()) return outcomes;
    if (row.ok()) {
      if (places != nullptr) CheckDocuments((*row)->fields);
      outcomes.push_back((*row)->fields.dump());
      continue;
    }
    CheckSentence(row.status());
    OCTET_CHECK(absl::StartsWith(row.status().message(), "fuzz:"));
    outcomes.emplace_back(row.status().message());
    if (absl::IsDataLoss(row.status())) return outcomes;
  }
}

void Run(const uint8_t* data, size_t size) {
  if (size == 0) return;
  const std::string bytes(reinterpret_cast<const char*>(data + 1), size - 1);
  const auto open = [&] {
    return MakeRowReader(kExtensions[data[0] % 4],
                         ByteStream::FromMemory(bytes, "fuzz"));
  };
  const auto reader = open();
  if (!reader.ok()) return CheckSentence(reader.status());
  std::vector<BytePosition> places;
  const std::vector<std::string> outcomes = ReadAll(**reader, &places);
  constexpr size_t kMaxPlaces = 16;  // each is a read of the rest
  for (size_t i = 0; i < places.size() && i < kMaxPlaces; ++i) {
    const auto again = open();
    (*again)->Seek(places[i]);
    OCTET_CHECK(ReadAll(**again, nullptr) ==
                std::vector<std::string>(outcomes.begin() + i, outcomes.end()))
        << "from row " << i;
  }
}

}  // namespace
}  // namespace octet

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  octet::Run(data, size);
  return 0;
}
