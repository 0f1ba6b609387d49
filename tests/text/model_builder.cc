#include "tests/text/model_builder.h"

#include <bit>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace octet::test {

std::string Varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) {
    bytes.push_back(static_cast<char>(value | 0x80));
  }
  bytes.push_back(static_cast<char>(value));
  return bytes;
}

std::string VarintField(uint32_t number, uint64_t value) {
  return absl::StrCat(Varint(number << 3), Varint(value));
}

std::string BytesField(uint32_t number, absl::string_view bytes) {
  return absl::StrCat(Varint(number << 3 | 2), Varint(bytes.size()), bytes);
}

std::string FloatField(uint32_t number, float value) {
  std::string bytes = Varint(number << 3 | 5);
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<char>(bits >> 8 * i));
  return bytes;
}

std::string PieceField(absl::string_view text, float score, PieceType type) {
  return BytesField(1,
                    absl::StrCat(BytesField(1, text), FloatField(2, score),
                                 VarintField(3, static_cast<uint64_t>(type))));
}

ModelBuilder::ModelBuilder() {
  Add("<unk>", 0, PieceType::kUnknown);
  Add("<s>", 0, PieceType::kControl);
  Add("</s>", 0, PieceType::kControl);
  Trainer(VarintField(3, 2));     // model_type: BPE
  Normalizer(VarintField(3, 1));  // add_dummy_prefix
  Normalizer(VarintField(4, 0));  // remove_extra_whitespaces
  Normalizer(VarintField(5, 1));  // escape_whitespaces
}

ModelBuilder& ModelBuilder::Add(absl::string_view text, float score,
                                PieceType type) {
  pieces_ += PieceField(text, score, type);
  return *this;
}

ModelBuilder& ModelBuilder::AddBytes() {
  for (int value = 0; value < 256; ++value) {
    Add(absl::StrFormat("<0x%02X>", value), 0, PieceType::kByte);
  }
  return Trainer(VarintField(35, 1));
}

ModelBuilder& ModelBuilder::Trainer(const std::string& field) {
  trainer_ += field;
  return *this;
}

ModelBuilder& ModelBuilder::Normalizer(const std::string& field) {
  normalizer_ += field;
  return *this;
}

std::string ModelBuilder::Build() const {
  return absl::StrCat(pieces_, BytesField(2, trainer_),
                      BytesField(3, normalizer_));
}

}  // namespace octet::test
