// Any bytes as text, and as ids, for a model that has every kind of piece: ids
// are in range, text comes back as valid UTF-8, and streaming gives what
// decoding at once gives.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/logging.h"
#include "tests/text/model_builder.h"
#include "text/incremental_decoder.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace {

using octet::PieceType;

std::unique_ptr<octet::Tokenizer> MakeTokenizer() {
  octet::test::ModelBuilder builder;
  builder.AddBytes();
  float score = -1;
  for (const char* piece : {"ab",
                            "\xE2\x96\x81"
                            "a",
                            "abc", "你好", "aa", "\xE2\x96\x81", "a", "b", "你",
                            "\xE2\x96\x81\xE2\x96\x81"}) {
    builder.Add(piece, score);
    score -= 0.5f;
  }
  builder.Add("aaaa", -0.5f, PieceType::kUnused);
  builder.Add("<x>", 0, PieceType::kUserDefined);
  builder.Add("<x>b", 0, PieceType::kUserDefined);
  builder.Add("<y>", 0, PieceType::kControl);
  return octet::Tokenizer::Parse(builder.Build(), "fuzz.model").value();
}

void CheckStream(const octet::Tokenizer& tokenizer,
                 const std::vector<int32_t>& ids) {
  octet::IncrementalDecoder decoder(tokenizer);
  std::string text;
  for (const int32_t id : ids) {
    const std::string part = decoder.Push(id).value();
    OCTET_CHECK(octet::IsValidUtf8(part));
    text += part;
  }
  text += decoder.Finish();
  OCTET_CHECK(text == tokenizer.Decode(ids).value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const octet::Tokenizer* const tokenizer = MakeTokenizer().release();
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const std::vector<int32_t> ids = tokenizer->Encode(text);
  for (const int32_t id : ids) {
    OCTET_CHECK(tokenizer->CheckId(id).ok());
    OCTET_CHECK(!tokenizer->IsControl(id));
  }
  const bool has_space_symbol = text.find(octet::kSpaceSymbol) != text.npos;
  if (octet::IsValidUtf8(text) && !has_space_symbol) {
    OCTET_CHECK(tokenizer->Decode(ids).value() == text);
  }
  CheckStream(*tokenizer, ids);
  std::vector<int32_t> byte_ids;
  for (size_t i = 0; i < size; ++i) byte_ids.push_back(data[i] + 3);
  CheckStream(*tokenizer, byte_ids);
  return 0;
}
