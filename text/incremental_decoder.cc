#include "text/incremental_decoder.h"

#include "base/status_macros.h"
#include "text/utf8.h"

namespace octet {

absl::StatusOr<std::string> IncrementalDecoder::Push(int32_t id) {
  std::string text;
  OCTET_RETURN_IF_ERROR(Push(id, text));
  return text;
}

absl::Status IncrementalDecoder::Push(int32_t id, std::string& text) {
  OCTET_RETURN_IF_ERROR(tokenizer_.CheckId(id));
  if (tokenizer_.IsByte(id)) {
    PushByte(tokenizer_.ByteValue(id), text);
    return absl::OkStatus();
  }
  FlushBytes(text);
  if (tokenizer_.IsControl(id)) {
    if (!options_.skip_special) {
      OCTET_ASSIGN_OR_RETURN(const absl::string_view piece,
                             tokenizer_.IdToPiece(id));
      Append(piece, text);
    }
    return absl::OkStatus();
  }
  absl::string_view surface = tokenizer_.Surface(id);
  const size_t space_bytes = at_start_ ? tokenizer_.LeadingSpaceBytes(id) : 0;
  surface.remove_prefix(space_bytes);
  Append(surface, text);
  // The first space is the dummy prefix; the next one is text, unless the
  // model takes extra spaces away.
  if (space_bytes > 0 && !tokenizer_.removes_extra_whitespaces()) {
    at_start_ = false;
  }
  return absl::OkStatus();
}

std::string IncrementalDecoder::Finish() {
  std::string text;
  Finish(text);
  return text;
}

void IncrementalDecoder::Finish(std::string& text) {
  FlushBytes(text);
  at_start_ = options_.at_start;
}

void IncrementalDecoder::PushByte(char byte, std::string& text) {
  bytes_.push_back(byte);
  while (!bytes_.empty() && !IsIncompleteUtf8(bytes_)) {
    const Utf8Char character = DecodeUtf8(bytes_);
    Append(character.valid
               ? absl::string_view(bytes_).substr(0, character.num_bytes)
               : kReplacementCharacter,
           text);
    bytes_.erase(0, character.num_bytes);
  }
}

void IncrementalDecoder::FlushBytes(std::string& text) {
  // Each byte is judged by itself: what is held back is no whole character.
  for (size_t i = 0; i < bytes_.size(); ++i) {
    Append(kReplacementCharacter, text);
  }
  bytes_.clear();
}

void IncrementalDecoder::Append(absl::string_view piece, std::string& text) {
  if (piece.empty()) return;
  text.append(piece.data(), piece.size());
  at_start_ = false;
}

}  // namespace octet
