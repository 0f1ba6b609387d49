// What a SentencePiece `.model` file says, as far as Octet uses it. The file is
// a protobuf ModelProto (sentencepiece_model.proto of google/sentencepiece,
// read here by its field numbers), without linking protobuf or
// libsentencepiece.
//
// Accepted are BPE models with the identity normaliser, which is what the
// Mixtral family ships. Every other file gets one sentence that begins with its
// name. Immutable after parsing; thread-safe as any const value.
#ifndef OCTET_TEXT_SENTENCEPIECE_MODEL_H_
#define OCTET_TEXT_SENTENCEPIECE_MODEL_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace octet {

// Numbers as in the file.
enum class PieceType {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct SentencePiece {
  std::string text;   // valid UTF-8, not empty, at most kMaxPieceBytes
  float score = 0.f;  // finite; the higher, the earlier it is merged
  PieceType type = PieceType::kNormal;
};

struct SentencePieceModel {
  // A longer piece is refused: it would make loading quadratic, and the longest
  // in real vocabularies are a tenth of it.
  static constexpr size_t kMaxPieceBytes = 512;

  std::vector<SentencePiece> pieces;  // the index is the token id; no two alike

  // trainer_spec
  int model_type = 1;          // 2 (BPE) once parsed
  bool byte_fallback = false;  // then all 256 byte pieces are there
  bool treat_whitespace_as_suffix = false;  // false once parsed
  std::string unk_piece = "<unk>";
  std::string bos_piece = "<s>";
  std::string eos_piece = "</s>";
  std::string pad_piece = "<pad>";
  std::string unk_surface = " \xE2\x81\x87 ";  // what <unk> decodes to

  // normalizer_spec
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

// `name` stands at the head of each error, for example the path.
absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(
    absl::string_view bytes, absl::string_view name);

// The value of a byte piece such as "<0x3A>", or -1 when it is not one.
int BytePieceValue(absl::string_view piece);

}  // namespace octet

#endif  // OCTET_TEXT_SENTENCEPIECE_MODEL_H_
