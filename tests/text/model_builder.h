// Writes SentencePiece `.model` bytes, right or wrong on purpose, with its own
// few lines of wire format so that the reader is not tested against itself.
#ifndef OCTET_TESTS_TEXT_MODEL_BUILDER_H_
#define OCTET_TESTS_TEXT_MODEL_BUILDER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "text/sentencepiece_model.h"

namespace octet::test {

std::string Varint(uint64_t value);
std::string VarintField(uint32_t number, uint64_t value);
std::string BytesField(uint32_t number, absl::string_view bytes);
std::string FloatField(uint32_t number, float value);

// A piece with its field number 1 of ModelProto.
std::string PieceField(absl::string_view text, float score, PieceType type);

// Starts as <unk>, <s>, </s> and the specs of a Mixtral model without bytes.
class ModelBuilder {
 public:
  ModelBuilder();
  ModelBuilder& Add(absl::string_view text, float score,
                    PieceType type = PieceType::kNormal);
  // Ids of <0x00> to <0xFF> follow those of the pieces so far.
  ModelBuilder& AddBytes();
  // Raw fields added to a section; a later field wins over an earlier one.
  ModelBuilder& Trainer(const std::string& field);
  ModelBuilder& Normalizer(const std::string& field);

  std::string Build() const;

 private:
  std::string pieces_;
  std::string trainer_;
  std::string normalizer_;
};

}  // namespace octet::test

#endif  // OCTET_TESTS_TEXT_MODEL_BUILDER_H_
