// Text to token ids and back, equal to SentencePiece (spm_encode and
// spm_decode, byte for byte) for the BPE models of the Mixtral family. Own
// code: libsentencepiece aborts in a process that also links gRPC.
//
// Immutable and thread-safe. Token ids are int32, 0 to vocab_size() - 1, and
// V = vocab_size(). Tested against spm_encode and spm_decode as separate
// processes.
#ifndef OCTET_TEXT_TOKENIZER_H_
#define OCTET_TEXT_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "text/bpe_encoder.h"
#include "text/sentencepiece_model.h"

namespace octet {

class Tokenizer {
 public:
  // Reads a `.model` file. NotFound when it cannot be read, InvalidArgument
  // when it is not a model of the accepted kind (sentencepiece_model.h).
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(
      const std::string& path);
  // The same from memory; `name` stands at the head of errors.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Parse(
      absl::string_view bytes, absl::string_view name);

  // A tokenizer without pieces, for a model that is spoken to in token ids
  // only: every id is out of range, and Encode gives nothing.
  static std::unique_ptr<Tokenizer> WithoutPieces();

  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // No BOS and no EOS. Any bytes are text: broken UTF-8 is encoded as U+FFFD.
  // Control pieces never come from text: "<s>" is three ordinary characters.
  std::vector<int32_t> Encode(absl::string_view text) const;
  // BOS first, where the model has one.
  std::vector<int32_t> EncodeWithBos(absl::string_view text) const;

  // The text of `ids` as spm_decode gives it: the dummy-prefix space goes,
  // control pieces are invisible, byte pieces are joined, and bytes that make
  // no character become one U+FFFD each. Valid UTF-8.
  // InvalidArgument names an id that is out of range.
  absl::StatusOr<std::string> Decode(absl::Span<const int32_t> ids) const;

  absl::StatusOr<absl::string_view> IdToPiece(int32_t id) const;
  // Any piece, control and byte pieces too; nullopt when there is none.
  std::optional<int32_t> PieceToId(absl::string_view piece) const;

  bool has_pieces() const { return !pieces_.empty(); }
  int32_t vocab_size() const { return static_cast<int32_t>(pieces_.size()); }
  // -1 where the model has none; unk_id is always there.
  int32_t bos_id() const { return bos_id_; }
  int32_t eos_id() const { return eos_id_; }
  int32_t unk_id() const { return unk_id_; }
  int32_t pad_id() const { return pad_id_; }

  // InvalidArgument, naming `id`, when it is not 0 to V - 1.
  absl::Status CheckId(int32_t id) const;
  // False for ids out of range.
  bool IsControl(int32_t id) const { return HasType(id, PieceType::kControl); }
  bool IsByte(int32_t id) const { return HasType(id, PieceType::kByte); }

  // For IncrementalDecoder; REQUIRES: 0 <= id < V.
  // What the piece adds to a text: spaces are plain, <unk> is its surface.
  // Empty for control and byte pieces.
  absl::string_view Surface(int32_t id) const { return surfaces_[id]; }
  // REQUIRES: IsByte(id).
  char ByteValue(int32_t id) const {
    return static_cast<char>(BytePieceValue(pieces_[id].text));
  }
  // How many bytes of Surface(id) go when the piece begins a text.
  size_t LeadingSpaceBytes(int32_t id) const;
  // True when all leading pieces lose their space until there is text, not
  // only the first that has one.
  bool removes_extra_whitespaces() const { return remove_extra_whitespaces_; }

 private:
  explicit Tokenizer(SentencePieceModel model);

  bool HasType(int32_t id, PieceType type) const {
    return id >= 0 && id < vocab_size() && pieces_[id].type == type;
  }
  int32_t ControlId(absl::string_view piece) const;

  const BpeEncoder encoder_;
  const bool add_dummy_prefix_;
  const bool remove_extra_whitespaces_;
  const bool escape_whitespaces_;
  const std::vector<SentencePiece> pieces_;              // [V]
  std::vector<std::string> surfaces_;                    // [V]
  absl::flat_hash_map<absl::string_view, int32_t> ids_;  // keys in pieces_
  int32_t unk_id_ = -1;
  int32_t bos_id_ = -1;
  int32_t eos_id_ = -1;
  int32_t pad_id_ = -1;
};

}  // namespace octet

#endif  // OCTET_TEXT_TOKENIZER_H_
