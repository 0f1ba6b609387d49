#include "text/bpe_encoder.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "text/utf8.h"

namespace octet {
namespace {

bool IsMergeable(PieceType type) {
  // A user-defined piece is matched before any merge, so none can make it.
  return type == PieceType::kNormal || type == PieceType::kUnused;
}

// rank[id] orders the scores: 0 is the highest, equal scores have equal ranks.
std::vector<uint32_t> RankScores(const SentencePieceModel& model) {
  std::vector<int32_t> by_score(model.pieces.size());
  for (size_t i = 0; i < by_score.size(); ++i) {
    by_score[i] = static_cast<int32_t>(i);
  }
  const auto score = [&](int32_t id) { return model.pieces[id].score; };
  std::stable_sort(by_score.begin(), by_score.end(),
                   [&](int32_t a, int32_t b) { return score(a) > score(b); });
  std::vector<uint32_t> ranks(by_score.size());
  uint32_t rank = 0;
  for (size_t i = 0; i < by_score.size(); ++i) {
    if (i > 0 && score(by_score[i]) != score(by_score[i - 1])) ++rank;
    ranks[by_score[i]] = rank;
  }
  return ranks;
}

}  // namespace

BpeEncoder::BpeEncoder(const SentencePieceModel& model)
    : num_pieces_(static_cast<int32_t>(model.pieces.size())),
      byte_fallback_(model.byte_fallback),
      char_pages_(kNumCodePoints / kPageSize, 0),
      char_symbols_(1) {
  char_symbols_[0].fill(-1);
  AddPieces(model);
  AddMerges(model);
}

int32_t BpeEncoder::SymbolOfChar(uint32_t code_point) const {
  return char_symbols_[char_pages_[code_point / kPageSize]]
                      [code_point % kPageSize];
}

void BpeEncoder::SetSymbolOfChar(uint32_t code_point, int32_t symbol) {
  uint16_t& page = char_pages_[code_point / kPageSize];
  if (page == 0) {
    page = static_cast<uint16_t>(char_symbols_.size());
    char_symbols_.emplace_back().fill(-1);
  }
  char_symbols_[page][code_point % kPageSize] = symbol;
}

void BpeEncoder::AddPieces(const SentencePieceModel& model) {
  for (int32_t id = 0; id < num_pieces_; ++id) {
    const SentencePiece& piece = model.pieces[id];
    switch (piece.type) {
      case PieceType::kUnknown:
        unk_id_ = id;
        break;
      case PieceType::kByte:
        byte_ids_[BytePieceValue(piece.text)] = id;
        break;
      case PieceType::kUserDefined:
        user_defined_.Add(piece.text, id);
        break;
      case PieceType::kUnused:
        is_unused_.resize(num_pieces_, false);
        is_unused_[id] = true;
        [[fallthrough]];
      case PieceType::kNormal: {
        const Utf8Char first = DecodeUtf8(piece.text);
        if (first.num_bytes == piece.text.size()) {
          SetSymbolOfChar(first.code_point, id);
        }
        break;
      }
      case PieceType::kControl:
        break;  // never comes from text
    }
  }
}

// For each piece: its characters are neighbours, and wherever it can be cut
// into two symbols, those two make it.
void BpeEncoder::AddMerges(const SentencePieceModel& model) {
  absl::flat_hash_map<absl::string_view, int32_t> symbols;
  for (int32_t id = 0; id < num_pieces_; ++id) {
    if (IsMergeable(model.pieces[id].type)) {
      symbols.emplace(model.pieces[id].text, id);
    }
  }
  const auto char_symbol = [&](absl::string_view text) {
    const Utf8Char character = DecodeUtf8(text);
    int32_t symbol = SymbolOfChar(character.code_point);
    if (symbol < 0) {
      symbol = num_pieces_ + static_cast<int32_t>(extra_chars_.size());
      extra_chars_.emplace_back(text.substr(0, character.num_bytes));
      SetSymbolOfChar(character.code_point, symbol);
    }
    return std::pair(symbol, character.num_bytes);
  };
  const auto symbol_of = [&](absl::string_view text) {
    const auto [symbol, num_bytes] = char_symbol(text);
    if (num_bytes == text.size()) return symbol;
    const auto it = symbols.find(text);
    return it == symbols.end() ? -1 : it->second;
  };
  const std::vector<uint32_t> ranks = RankScores(model);
  for (int32_t id = 0; id < num_pieces_; ++id) {
    if (!IsMergeable(model.pieces[id].type)) continue;
    const absl::string_view piece = model.pieces[id].text;
    auto [left_char, cut] = char_symbol(piece);
    while (cut < piece.size()) {
      const auto [right_char, num_bytes] = char_symbol(piece.substr(cut));
      merges_.SetAdjacent(left_char, right_char);
      const int32_t left = symbol_of(piece.substr(0, cut));
      const int32_t right = symbol_of(piece.substr(cut));
      if (left >= 0 && right >= 0) merges_.Set(left, right, id, ranks[id]);
      left_char = right_char;
      cut += num_bytes;
    }
  }
}

// One text on its way to ids: the symbols of the segment at hand in a linked
// list over an array, and a heap of candidate merges.
class BpeEncoder::Run {
 public:
  Run(const BpeEncoder& encoder, absl::string_view text,
      std::vector<int32_t>& ids)
      : encoder_(encoder), text_(text), ids_(ids) {}

  void Encode() {
    const bool cut_text = encoder_.is_unused_.empty();
    size_t begin = 0;
    while (begin < text_.size()) {
      Symbol symbol = ReadSymbol(begin);
      if (!symbols_.empty()) {
        Symbol& last = symbols_.back();
        const Merge merge = encoder_.merges_.Get(last.id, symbol.id);
        if (cut_text && !merge.adjacent) {
          FinishSegment();
        } else {
          SetMerge(last, symbol, merge);
        }
      }
      symbols_.push_back(symbol);
      begin += symbol.num_bytes;
    }
    FinishSegment();
  }

 private:
  struct Symbol {
    int32_t id = -1;          // -1: a character that is in no piece
    int32_t merged = -1;      // what it makes with the next symbol
    uint32_t rank = kNoRank;  // of that merge
    int32_t prev = -1;        // index in the segment; -1: none
    int32_t next = -1;
    size_t begin = 0;      // in the text
    size_t num_bytes = 0;  // of the first character, or the user-defined piece
  };

  Symbol ReadSymbol(size_t begin) const {
    Symbol symbol;
    symbol.begin = begin;
    const absl::string_view rest = text_.substr(begin);
    const PrefixMatcher::Match match = encoder_.user_defined_.Longest(rest);
    if (match.num_bytes > 0) {
      symbol.id = match.id;
      symbol.num_bytes = match.num_bytes;
      return symbol;
    }
    const Utf8Char character = DecodeUtf8(rest);
    symbol.id = encoder_.SymbolOfChar(character.code_point);
    symbol.num_bytes = character.num_bytes;
    return symbol;
  }

  // Records what `left` makes with its next symbol `right`.
  void SetMerge(Symbol& left, const Symbol& right, const Merge& merge) {
    left.merged = merge.id;
    left.rank = merge.rank;
    if (merge.id < 0 || encoder_.is_unused_.empty()) return;
    // SentencePiece cuts an unused piece where it was last seen to be made,
    // anywhere in the text.
    if (encoder_.is_unused_[merge.id]) {
      halves_[merge.id] = {left.id, right.id};
    }
  }

  // The smallest key is the best merge: rank first, then the leftmost.
  void PushMerge(int32_t left) {
    if (symbols_[left].rank == kNoRank) return;
    heap_.push_back((uint64_t{symbols_[left].rank} << 32) |
                    static_cast<uint32_t>(left));
  }

  void UpdateMerge(int32_t left) {
    Symbol& symbol = symbols_[left];
    if (symbol.next < 0) {
      symbol.merged = -1;
      symbol.rank = kNoRank;
      return;
    }
    const Symbol& right = symbols_[symbol.next];
    SetMerge(symbol, right, encoder_.merges_.Get(symbol.id, right.id));
    if (symbol.rank == kNoRank) return;
    PushMerge(left);
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }

  void MergeAll() {
    const int32_t num_symbols = static_cast<int32_t>(symbols_.size());
    for (int32_t i = 0; i < num_symbols; ++i) {
      symbols_[i].prev = i - 1;
      symbols_[i].next = i + 1 < num_symbols ? i + 1 : -1;
      PushMerge(i);
    }
    std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      const uint64_t key = heap_.back();
      heap_.pop_back();
      const int32_t left = static_cast<int32_t>(key & 0xFFFFFFFF);
      Symbol& symbol = symbols_[left];
      // Another merge took one of the two. (If the pair that stands there now
      // has the same rank, this key is as good as its own.)
      if (symbol.rank != key >> 32) continue;
      Symbol& right = symbols_[symbol.next];
      symbol.id = symbol.merged;
      symbol.next = right.next;
      right.rank = kNoRank;
      if (symbol.next >= 0) symbols_[symbol.next].prev = left;
      if (symbol.prev >= 0) UpdateMerge(symbol.prev);
      UpdateMerge(left);
    }
  }

  void FinishSegment() {
    if (symbols_.size() > 1) MergeAll();
    for (int32_t i = symbols_.empty() ? -1 : 0; i >= 0; i = symbols_[i].next) {
      Emit(symbols_[i]);
    }
    symbols_.clear();
  }

  void Emit(const Symbol& symbol) {
    if (symbol.id < 0) {
      EmitUnknown(text_.substr(symbol.begin, symbol.num_bytes));
    } else if (halves_.empty()) {
      EmitSymbol(symbol.id);
    } else {
      EmitResegmented(symbol.id);
    }
  }

  void EmitSymbol(int32_t id) {
    if (id >= encoder_.num_pieces_) {
      EmitUnknown(encoder_.extra_chars_[id - encoder_.num_pieces_]);
      return;
    }
    ids_.push_back(id);
    after_unknown_ = false;
  }

  void EmitResegmented(int32_t id) {
    std::vector<int32_t> todo = {id};
    while (!todo.empty()) {
      const int32_t top = todo.back();
      todo.pop_back();
      const bool is_unused =
          top < encoder_.num_pieces_ && encoder_.is_unused_[top];
      const auto halves = is_unused ? halves_.find(top) : halves_.end();
      if (halves == halves_.end()) {
        EmitSymbol(top);
      } else {
        todo.push_back(halves->second.second);
        todo.push_back(halves->second.first);
      }
    }
  }

  void EmitUnknown(absl::string_view bytes) {
    if (encoder_.byte_fallback_) {
      for (const char byte : bytes) {
        ids_.push_back(encoder_.byte_ids_[static_cast<unsigned char>(byte)]);
      }
    } else if (!after_unknown_) {
      ids_.push_back(encoder_.unk_id_);
      after_unknown_ = true;
    }
  }

  const BpeEncoder& encoder_;
  const absl::string_view text_;
  std::vector<int32_t>& ids_;
  std::vector<Symbol> symbols_;
  std::vector<uint64_t> heap_;
  bool after_unknown_ = false;
  // The last seen halves of each unused piece.
  absl::flat_hash_map<int32_t, std::pair<int32_t, int32_t>> halves_;
};

void BpeEncoder::Encode(absl::string_view normalized,
                        std::vector<int32_t>& ids) const {
  Run(*this, normalized, ids).Encode();
}

}  // namespace octet
