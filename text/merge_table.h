// What two neighbouring symbols make: one lookup per pair of neighbours, open
// addressing with linear probing. Immutable after the last Set, and then
// thread-safe.
#ifndef OCTET_TEXT_MERGE_TABLE_H_
#define OCTET_TEXT_MERGE_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace octet {

inline constexpr uint32_t kNoRank = UINT32_MAX;

struct Merge {
  int32_t id = -1;          // the piece that the pair makes, or -1
  uint32_t rank = kNoRank;  // 0 is merged first; equal scores, equal ranks
  bool adjacent = false;    // the two stand side by side in some piece
};

class MergeTable {
 public:
  // A pair that is set again keeps the entry with an id.
  void Set(int32_t left, int32_t right, int32_t id, uint32_t rank) {
    if (2 * (size_ + 1) > slots_.size()) Grow();
    Slot& slot = slots_[Find(Key(left, right))];
    if (slot.key == kEmpty) {
      slot = {Key(left, right), id, rank};
      ++size_;
    } else if (id >= 0) {
      slot.id = id;
      slot.rank = rank;
    }
  }
  // Marks the pair as neighbours inside a piece, without a merge of their own.
  void SetAdjacent(int32_t left, int32_t right) {
    Set(left, right, -1, kNoRank);
  }

  // Symbols below 0 make nothing.
  Merge Get(int32_t left, int32_t right) const {
    if (left < 0 || right < 0 || slots_.empty()) return {};
    const Slot& slot = slots_[Find(Key(left, right))];
    if (slot.key == kEmpty) return {};
    return {slot.id, slot.rank, true};
  }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;  // no pair: symbols are >= 0
  struct Slot {
    uint64_t key = kEmpty;
    int32_t id = -1;
    uint32_t rank = kNoRank;
  };

  static uint64_t Key(int32_t left, int32_t right) {
    return (uint64_t{static_cast<uint32_t>(left)} << 32) |
           static_cast<uint32_t>(right);
  }
  // Fibonacci hashing: the product's high bits are well mixed.
  size_t Find(uint64_t key) const {
    size_t index = (key * 0x9E3779B97F4A7C15u) >> shift_;
    while (slots_[index].key != key && slots_[index].key != kEmpty) {
      index = (index + 1) & (slots_.size() - 1);
    }
    return index;
  }
  void Grow() {
    std::vector<Slot> old = std::move(slots_);
    shift_ -= old.empty() ? 10 : 1;
    slots_.assign(old.empty() ? 1024 : 2 * old.size(), Slot());
    for (const Slot& slot : old) {
      if (slot.key != kEmpty) slots_[Find(slot.key)] = slot;
    }
  }

  std::vector<Slot> slots_;  // a power of two, at most half full
  size_t size_ = 0;
  int shift_ = 64;
};

}  // namespace octet

#endif  // OCTET_TEXT_MERGE_TABLE_H_
