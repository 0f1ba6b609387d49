#include "text/tokenizer.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"
#include "text/incremental_decoder.h"
#include "text/normalizer.h"
#include "text/utf8.h"

namespace octet {
namespace {

// Far above any real vocabulary, so that a wrong path (a weight shard) is told
// at once instead of being read.
constexpr std::streamoff kMaxModelBytes = 256 << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(
    const std::string& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  file.seekg(0, std::ios::end);
  const std::streamoff num_bytes = file.tellg();
  file.seekg(0);
  // A directory opens, but has no readable end.
  if (!file || num_bytes < 0 || (num_bytes > 0 && file.peek() == EOF)) {
    return absl::NotFoundError(
        absl::StrCat(path, ": cannot be read: ",
                     errno != 0 ? std::strerror(errno) : "not a regular file"));
  }
  if (num_bytes > kMaxModelBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": has ", num_bytes,
        " bytes, expected a SentencePiece model of at most ", kMaxModelBytes));
  }
  std::string bytes(num_bytes, '\0');
  file.read(bytes.data(), num_bytes);
  if (file.gcount() != num_bytes) {
    return absl::NotFoundError(absl::StrCat(path, ": cannot be read: only ",
                                            file.gcount(), " of ", num_bytes,
                                            " bytes came"));
  }
  return Parse(bytes, path);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Parse(
    absl::string_view bytes, absl::string_view name) {
  OCTET_ASSIGN_OR_RETURN(SentencePieceModel model,
                         ParseSentencePieceModel(bytes, name));
  return absl::WrapUnique(new Tokenizer(std::move(model)));
}

std::unique_ptr<Tokenizer> Tokenizer::WithoutPieces() {
  return absl::WrapUnique(new Tokenizer(SentencePieceModel()));
}

Tokenizer::Tokenizer(SentencePieceModel model)
    : encoder_(model),
      add_dummy_prefix_(model.add_dummy_prefix),
      remove_extra_whitespaces_(model.remove_extra_whitespaces),
      escape_whitespaces_(model.escape_whitespaces),
      pieces_(std::move(model.pieces)) {
  ids_.reserve(pieces_.size());
  surfaces_.resize(pieces_.size());
  for (int32_t id = 0; id < vocab_size(); ++id) {
    const SentencePiece& piece = pieces_[id];
    ids_.emplace(piece.text, id);
    if (piece.type == PieceType::kUnknown) {
      unk_id_ = id;
      surfaces_[id] = model.unk_surface;
    } else if (piece.type != PieceType::kControl &&
               piece.type != PieceType::kByte) {
      surfaces_[id] = absl::StrReplaceAll(piece.text, {{kSpaceSymbol, " "}});
    }
  }
  bos_id_ = ControlId(model.bos_piece);
  eos_id_ = ControlId(model.eos_piece);
  pad_id_ = ControlId(model.pad_piece);
}

int32_t Tokenizer::ControlId(absl::string_view piece) const {
  const std::optional<int32_t> id = PieceToId(piece);
  return id.has_value() && IsControl(*id) ? *id : -1;
}

std::vector<int32_t> Tokenizer::Encode(absl::string_view text) const {
  const std::string normalized = Normalize(
      text, {add_dummy_prefix_, remove_extra_whitespaces_, escape_whitespaces_},
      encoder_.user_defined());
  std::vector<int32_t> ids;
  encoder_.Encode(normalized, ids);
  return ids;
}

std::vector<int32_t> Tokenizer::EncodeWithBos(absl::string_view text) const {
  std::vector<int32_t> ids = Encode(text);
  if (bos_id_ >= 0) ids.insert(ids.begin(), bos_id_);
  return ids;
}

absl::StatusOr<std::string> Tokenizer::Decode(
    absl::Span<const int32_t> ids) const {
  IncrementalDecoder decoder(*this);
  std::string text;
  for (const int32_t id : ids) {
    OCTET_RETURN_IF_ERROR(decoder.Push(id, text));
  }
  decoder.Finish(text);
  return text;
}

absl::Status Tokenizer::CheckId(int32_t id) const {
  if (id >= 0 && id < vocab_size()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "token id ", id, " is out of range, expected 0 to ", vocab_size() - 1));
}

absl::StatusOr<absl::string_view> Tokenizer::IdToPiece(int32_t id) const {
  OCTET_RETURN_IF_ERROR(CheckId(id));
  return absl::string_view(pieces_[id].text);
}

std::optional<int32_t> Tokenizer::PieceToId(absl::string_view piece) const {
  const auto it = ids_.find(piece);
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

size_t Tokenizer::LeadingSpaceBytes(int32_t id) const {
  const SentencePiece& piece = pieces_[id];
  const bool strips = add_dummy_prefix_ || remove_extra_whitespaces_;
  // <unk> keeps the space of its surface.
  if (!strips || surfaces_[id].empty() || piece.type == PieceType::kUnknown) {
    return 0;
  }
  return absl::StartsWith(piece.text, kSpaceSymbol) ? 1 : 0;
}

}  // namespace octet
