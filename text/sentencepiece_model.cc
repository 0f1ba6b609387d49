#include "text/sentencepiece_model.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "text/utf8.h"
#include "text/wire_reader.h"

namespace octet {
namespace {

constexpr int kModelTypeBpe = 2;

// Field numbers of the messages of sentencepiece_model.proto.
enum ModelField : uint32_t {
  kPieces = 1,
  kTrainerSpec = 2,
  kNormalizerSpec = 3,
  kDenormalizerSpec = 5
};
enum PieceField : uint32_t { kPiece = 1, kScore = 2, kType = 3 };
enum TrainerField : uint32_t {
  kModelType = 3,
  kTreatWhitespaceAsSuffix = 24,
  kByteFallback = 35,
  kUnkSurface = 44,
  kUnkPiece = 45,
  kBosPiece = 46,
  kEosPiece = 47,
  kPadPiece = 48
};
enum NormalizerField : uint32_t {
  kPrecompiledCharsmap = 2,
  kAddDummyPrefix = 3,
  kRemoveExtraWhitespaces = 4,
  kEscapeWhitespaces = 5
};

absl::Status Error(absl::string_view message) {
  return absl::InvalidArgumentError(message);
}

// A piece as a reader may see it in an error, with odd bytes escaped.
std::string Shown(absl::string_view piece) {
  return absl::StrCat("'", absl::Utf8SafeCHexEscape(piece.substr(0, 40)), "'");
}

absl::Status ExpectType(const WireField& field, WireType type,
                        absl::string_view field_name) {
  if (field.type == type) return absl::OkStatus();
  return Error(absl::StrCat(field_name, " at byte ", field.offset,
                            " has wire type ", static_cast<int>(field.type),
                            ", expected ", static_cast<int>(type)));
}

absl::Status ReadBool(const WireField& field, absl::string_view field_name,
                      bool& value) {
  OCTET_RETURN_IF_ERROR(ExpectType(field, WireType::kVarint, field_name));
  value = field.value != 0;
  return absl::OkStatus();
}

absl::Status ReadString(const WireField& field, absl::string_view field_name,
                        std::string& value) {
  OCTET_RETURN_IF_ERROR(
      ExpectType(field, WireType::kLengthDelimited, field_name));
  if (!IsValidUtf8(field.bytes)) {
    return Error(absl::StrCat(field_name, " at byte ", field.offset,
                              " is not valid UTF-8"));
  }
  value = std::string(field.bytes);
  return absl::OkStatus();
}

absl::StatusOr<SentencePiece> ParsePiece(const WireField& message, size_t id) {
  const std::string name = absl::StrCat("pieces[", id, "]");
  OCTET_RETURN_IF_ERROR(
      ExpectType(message, WireType::kLengthDelimited, "pieces"));
  SentencePiece piece;
  WireReader reader(message.bytes, message.bytes_offset);
  while (!reader.AtEnd()) {
    OCTET_ASSIGN_OR_RETURN(const WireField field, reader.Next());
    if (field.number == kPiece) {
      OCTET_RETURN_IF_ERROR(
          ReadString(field, absl::StrCat(name, ".piece"), piece.text));
    } else if (field.number == kScore) {
      OCTET_RETURN_IF_ERROR(
          ExpectType(field, WireType::kFixed32, absl::StrCat(name, ".score")));
      piece.score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
    } else if (field.number == kType) {
      OCTET_RETURN_IF_ERROR(
          ExpectType(field, WireType::kVarint, absl::StrCat(name, ".type")));
      if (field.value < 1 || field.value > 6) {
        return Error(
            absl::StrCat(name, ".type is ", field.value, ", expected 1 to 6"));
      }
      piece.type = static_cast<PieceType>(field.value);
    }
  }
  if (piece.text.empty()) return Error(absl::StrCat(name, ".piece is empty"));
  if (piece.text.size() > SentencePieceModel::kMaxPieceBytes) {
    return Error(absl::StrCat(name, ".piece has ", piece.text.size(),
                              " bytes, expected at most ",
                              SentencePieceModel::kMaxPieceBytes));
  }
  if (!std::isfinite(piece.score)) {
    return Error(absl::StrCat(name, ".score of ", Shown(piece.text), " is ",
                              piece.score, ", expected a finite number"));
  }
  return piece;
}

absl::Status ParseTrainerSpec(const WireField& message,
                              SentencePieceModel& model) {
  OCTET_RETURN_IF_ERROR(
      ExpectType(message, WireType::kLengthDelimited, "trainer_spec"));
  WireReader reader(message.bytes, message.bytes_offset);
  while (!reader.AtEnd()) {
    OCTET_ASSIGN_OR_RETURN(const WireField field, reader.Next());
    absl::Status status;
    switch (field.number) {
      case kModelType:
        status =
            ExpectType(field, WireType::kVarint, "trainer_spec.model_type");
        model.model_type = static_cast<int>(field.value);
        break;
      case kTreatWhitespaceAsSuffix:
        status = ReadBool(field, "trainer_spec.treat_whitespace_as_suffix",
                          model.treat_whitespace_as_suffix);
        break;
      case kByteFallback:
        status =
            ReadBool(field, "trainer_spec.byte_fallback", model.byte_fallback);
        break;
      case kUnkSurface:
        status =
            ReadString(field, "trainer_spec.unk_surface", model.unk_surface);
        break;
      case kUnkPiece:
        status = ReadString(field, "trainer_spec.unk_piece", model.unk_piece);
        break;
      case kBosPiece:
        status = ReadString(field, "trainer_spec.bos_piece", model.bos_piece);
        break;
      case kEosPiece:
        status = ReadString(field, "trainer_spec.eos_piece", model.eos_piece);
        break;
      case kPadPiece:
        status = ReadString(field, "trainer_spec.pad_piece", model.pad_piece);
        break;
      default:
        break;  // how it was trained does not matter here
    }
    OCTET_RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

// `section` is normalizer_spec, which goes into `model`, or denormalizer_spec,
// of which only the character map counts.
absl::Status ParseNormalizerSpec(const WireField& message,
                                 absl::string_view section,
                                 SentencePieceModel& model) {
  OCTET_RETURN_IF_ERROR(
      ExpectType(message, WireType::kLengthDelimited, section));
  WireReader reader(message.bytes, message.bytes_offset);
  while (!reader.AtEnd()) {
    OCTET_ASSIGN_OR_RETURN(const WireField field, reader.Next());
    absl::Status status;
    switch (field.number) {
      case kPrecompiledCharsmap:
        status = ExpectType(field, WireType::kLengthDelimited,
                            absl::StrCat(section, ".precompiled_charsmap"));
        if (status.ok() && !field.bytes.empty()) {
          status = Error(absl::StrCat(
              section, ".precompiled_charsmap has ", field.bytes.size(),
              " bytes, expected none: only models trained with "
              "--normalization_rule_name=identity are read"));
        }
        break;
      case kAddDummyPrefix:
        status = ReadBool(field, absl::StrCat(section, ".add_dummy_prefix"),
                          model.add_dummy_prefix);
        break;
      case kRemoveExtraWhitespaces:
        status =
            ReadBool(field, absl::StrCat(section, ".remove_extra_whitespaces"),
                     model.remove_extra_whitespaces);
        break;
      case kEscapeWhitespaces:
        status = ReadBool(field, absl::StrCat(section, ".escape_whitespaces"),
                          model.escape_whitespaces);
        break;
      default:
        break;
    }
    OCTET_RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

absl::Status CheckSpecs(const SentencePieceModel& model) {
  if (model.model_type != kModelTypeBpe) {
    return Error(absl::StrCat("trainer_spec.model_type is ", model.model_type,
                              ", expected 2 (BPE)"));
  }
  if (model.treat_whitespace_as_suffix) {
    return Error(
        "trainer_spec.treat_whitespace_as_suffix is true, expected false");
  }
  return absl::OkStatus();
}

absl::Status CheckBytePieces(const SentencePieceModel& model) {
  std::array<bool, 256> found = {};
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePiece& piece = model.pieces[id];
    if (piece.type != PieceType::kByte) continue;
    if (!model.byte_fallback) {
      return Error(absl::StrCat("pieces[", id, "] ", Shown(piece.text),
                                " is a byte piece, but "
                                "trainer_spec.byte_fallback is false"));
    }
    const int value = BytePieceValue(piece.text);
    if (value < 0) {
      return Error(absl::StrCat("pieces[", id, "] is a byte piece named ",
                                Shown(piece.text),
                                ", expected '<0x00>' to '<0xFF>'"));
    }
    found[value] = true;
  }
  for (int value = 0; model.byte_fallback && value < 256; ++value) {
    if (found[value]) continue;
    return Error(absl::StrCat(
        "the byte piece '<0x",
        absl::AsciiStrToUpper(absl::StrCat(absl::Hex(value, absl::kZeroPad2))),
        ">' is missing, but trainer_spec.byte_fallback is true"));
  }
  return absl::OkStatus();
}

absl::Status CheckPieces(const SentencePieceModel& model) {
  if (model.pieces.empty()) return Error("has no pieces");
  absl::flat_hash_map<absl::string_view, size_t> ids;
  ids.reserve(model.pieces.size());
  int unk_id = -1;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePiece& piece = model.pieces[id];
    const auto [it, inserted] = ids.emplace(piece.text, id);
    if (!inserted) {
      return Error(absl::StrCat("piece ", Shown(piece.text),
                                " is defined twice, with ids ", it->second,
                                " and ", id));
    }
    if (piece.type != PieceType::kUnknown) continue;
    if (unk_id >= 0) {
      return Error(absl::StrCat("has two pieces of type UNKNOWN, with ids ",
                                unk_id, " and ", id, ", expected one"));
    }
    unk_id = static_cast<int>(id);
  }
  if (unk_id < 0) return Error("has no piece of type UNKNOWN, expected one");
  return CheckBytePieces(model);
}

absl::StatusOr<SentencePieceModel> Parse(absl::string_view bytes) {
  if (bytes.empty()) return Error("is empty, expected a SentencePiece model");
  SentencePieceModel model;
  SentencePieceModel denormalizer;
  WireReader reader(bytes, 0);
  while (!reader.AtEnd()) {
    OCTET_ASSIGN_OR_RETURN(const WireField field, reader.Next());
    if (field.number == kPieces) {
      OCTET_ASSIGN_OR_RETURN(SentencePiece piece,
                             ParsePiece(field, model.pieces.size()));
      model.pieces.push_back(std::move(piece));
    } else if (field.number == kTrainerSpec) {
      OCTET_RETURN_IF_ERROR(ParseTrainerSpec(field, model));
    } else if (field.number == kNormalizerSpec) {
      OCTET_RETURN_IF_ERROR(
          ParseNormalizerSpec(field, "normalizer_spec", model));
    } else if (field.number == kDenormalizerSpec) {
      OCTET_RETURN_IF_ERROR(
          ParseNormalizerSpec(field, "denormalizer_spec", denormalizer));
    }
  }
  OCTET_RETURN_IF_ERROR(CheckSpecs(model));
  OCTET_RETURN_IF_ERROR(CheckPieces(model));
  return model;
}

}  // namespace

int BytePieceValue(absl::string_view piece) {
  constexpr absl::string_view kDigits = "0123456789ABCDEF";
  if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') {
    return -1;
  }
  const size_t high = kDigits.find(piece[3]);
  const size_t low = kDigits.find(piece[4]);
  if (high == kDigits.npos || low == kDigits.npos) return -1;
  return static_cast<int>(high * 16 + low);
}

absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(
    absl::string_view bytes, absl::string_view name) {
  absl::StatusOr<SentencePieceModel> model = Parse(bytes);
  if (model.ok()) return model;
  return absl::Status(model.status().code(),
                      absl::StrCat(name, ": ", model.status().message()));
}

}  // namespace octet
