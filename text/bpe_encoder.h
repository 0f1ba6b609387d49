// Byte-pair encoding by piece score, as SentencePiece does it: the text begins
// as characters and user-defined pieces; of all neighbours whose concatenation
// is a piece, the one with the highest score is merged first, the leftmost of
// equals; pieces of type UNUSED are cut again into what they were merged from.
//
// Two things make it fast without changing a result. Merges are looked up by
// the ids of the two halves, in a table made at construction. And the text is
// cut wherever two adjacent characters stand side by side in no piece, since no
// merge can cross such a place; most segments are a word or shorter.
//
// A *symbol* is an id of that table: the id of a piece, or, from V upwards, a
// character that occurs inside pieces but is none itself.
//
// Immutable after construction; thread-safe.
#ifndef OCTET_TEXT_BPE_ENCODER_H_
#define OCTET_TEXT_BPE_ENCODER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "text/merge_table.h"
#include "text/prefix_matcher.h"
#include "text/sentencepiece_model.h"

namespace octet {

class BpeEncoder {
 public:
  // `model` must have been made by ParseSentencePieceModel.
  explicit BpeEncoder(const SentencePieceModel& model);

  // Appends the ids of `normalized`, which must be valid UTF-8. A character
  // outside the vocabulary becomes its byte pieces, or, without byte fallback,
  // part of one UNKNOWN for the whole run of such characters.
  void Encode(absl::string_view normalized, std::vector<int32_t>& ids) const;

  const PrefixMatcher& user_defined() const { return user_defined_; }

 private:
  class Run;  // the state of one Encode

  void AddPieces(const SentencePieceModel& model);
  void AddMerges(const SentencePieceModel& model);
  int32_t SymbolOfChar(uint32_t code_point) const;
  void SetSymbolOfChar(uint32_t code_point, int32_t symbol);

  static constexpr uint32_t kPageSize = 256;

  int32_t num_pieces_ = 0;
  int32_t unk_id_ = -1;
  bool byte_fallback_ = false;
  std::array<int32_t, 256> byte_ids_ = {};
  PrefixMatcher user_defined_;
  MergeTable merges_;
  std::vector<bool> is_unused_;  // [V]; empty when no piece is
  // Characters inside pieces that are no piece: symbol V + i is the i-th.
  std::vector<std::string> extra_chars_;
  // Symbol of a code point in two levels; page 0 has none.
  std::vector<uint16_t> char_pages_;
  std::vector<std::array<int32_t, kPageSize>> char_symbols_;
};

}  // namespace octet

#endif  // OCTET_TEXT_BPE_ENCODER_H_
