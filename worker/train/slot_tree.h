// Sums over slots in a fixed binary tree, so that neither the ranks that
// computed the slots nor the calls that brought them change a bit.
//
// Node (level l, index i) is the sum of slots [i 2^l, (i + 1) 2^l): node = left
// child + right child. Slots without a value are absent, and a node with one
// child is that child. What is left of n slots (the aligned blocks of n's
// binary form) is folded from the right: sum = last; sum = node + sum.
#ifndef OCTET_WORKER_TRAIN_SLOT_TREE_H_
#define OCTET_WORKER_TRAIN_SLOT_TREE_H_

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/status_macros.h"

namespace octet {

struct SlotBlock {
  int level = 0;
  int64_t index = 0;

  int64_t begin() const { return index << level; }
  int64_t end() const { return (index + 1) << level; }
  SlotBlock parent() const { return {level + 1, index >> 1}; }
  friend bool operator==(const SlotBlock&, const SlotBlock&) = default;
};

// Half-open ranges of slots, rising, not touching.
class SlotRanges {
 public:
  // `begin` is not below what was added before; touching ranges become one.
  void Add(int64_t begin, int64_t end) {
    if (begin == end) return;
    if (!ranges_.empty() && ranges_.back().second == begin) {
      ranges_.back().second = end;
    } else {
      ranges_.push_back({begin, end});
    }
  }
  bool Contains(int64_t begin, int64_t end) const {
    auto next = std::upper_bound(
        ranges_.begin(), ranges_.end(), begin,
        [](int64_t slot, const auto& range) { return slot < range.first; });
    return next != ranges_.begin() && end <= std::prev(next)->second;
  }

 private:
  std::vector<std::pair<int64_t, int64_t>> ranges_;
};

// The present nodes of one tree. Value is movable.
template <typename Value>
class SlotTree {
 public:
  struct Node {
    SlotBlock block;
    Value value;
  };

  // Nodes may come in any order, but no slot twice.
  void Add(SlotBlock block, Value value) {
    const auto next = std::find_if(
        nodes_.begin(), nodes_.end(),
        [&](const Node& node) { return node.block.begin() > block.begin(); });
    nodes_.insert(next, Node{block, std::move(value)});
  }

  // Puts nodes together as far as `complete(block)` says that nothing can come
  // for the block any more. merge(left, right) adds right to left: absl::Status
  // (Value&, Value&&).
  template <typename Complete, typename Merge>
  absl::Status Settle(const Complete& complete, const Merge& merge) {
    for (bool again = !nodes_.empty(); again;) {
      again = false;
      int lowest = 64;
      for (const Node& node : nodes_) {
        if (complete(node.block.parent())) {
          lowest = std::min(lowest, node.block.level);
        }
      }
      // By rising level: where a complete block's parent is complete too, all
      // that lies in its sibling has become one node before.
      for (size_t i = 0; i < nodes_.size() && lowest < 63; ++i) {
        const SlotBlock parent = nodes_[i].block.parent();
        if (nodes_[i].block.level != lowest || !complete(parent)) continue;
        if (i + 1 < nodes_.size() &&
            nodes_[i + 1].block.begin() < parent.end()) {
          OCTET_RETURN_IF_ERROR(
              merge(nodes_[i].value, std::move(nodes_[i + 1].value)));
          nodes_.erase(nodes_.begin() + i + 1);
        }
        nodes_[i].block = parent;
        again = nodes_.size() > 1;
      }
    }
    return absl::OkStatus();
  }

  // Takes all nodes and folds them from the right. The tree must have nodes.
  template <typename Merge>
  absl::StatusOr<Value> Fold(const Merge& merge) {
    while (nodes_.size() > 1) {
      Node right = std::move(nodes_.back());
      nodes_.pop_back();
      OCTET_RETURN_IF_ERROR(merge(nodes_.back().value, std::move(right.value)));
    }
    Value value = std::move(nodes_.back().value);
    nodes_.clear();
    return value;
  }

  // By rising slot.
  std::vector<Node>& nodes() { return nodes_; }
  const std::vector<Node>& nodes() const { return nodes_; }
  bool empty() const { return nodes_.empty(); }
  void Clear() { nodes_.clear(); }

 private:
  std::vector<Node> nodes_;
};

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_SLOT_TREE_H_
