#include "kernels/cuda/attention_backward_plan.h"

#include <algorithm>

namespace octet::cuda {
namespace {

void AddItems(int32_t sequence, int64_t count,
              std::vector<AttentionBackwardItem>& items) {
  for (int64_t begin = 0; begin < count; begin += kAttentionBackwardWarps) {
    items.push_back({sequence, static_cast<int32_t>(begin)});
  }
}

template <typename T>
void Append(const std::vector<T>& from, std::vector<std::byte>& to) {
  const auto* bytes = reinterpret_cast<const std::byte*>(from.data());
  to.insert(to.end(), bytes, bytes + from.size() * sizeof(T));
}

// The array at `base`, which is moved behind it.
template <typename T>
const T* Take(const std::vector<T>& array, const std::byte*& base) {
  const auto* begin = reinterpret_cast<const T*>(base);
  base += array.size() * sizeof(T);
  return begin;
}

}  // namespace

AttentionBackwardPlan::AttentionBackwardPlan(
    absl::Span<const AttentionSequence> sequences, int group,
    int block_tokens) {
  for (const AttentionSequence& sequence : sequences) {
    if (sequence.num_rows == 0) continue;
    const auto index = static_cast<int32_t>(sequences_.size());
    sequences_.push_back({sequence.row_begin,
                          static_cast<int64_t>(blocks_.size()),
                          sequence.num_rows});
    AddItems(index, sequence.num_rows * group, query_items_);
    AddItems(index, sequence.num_rows, key_items_);
    const int64_t count = (sequence.num_rows + block_tokens - 1) / block_tokens;
    blocks_.insert(blocks_.end(), sequence.block_table.begin(),
                   sequence.block_table.begin() + count);
  }
}

std::vector<std::byte> AttentionBackwardPlan::Bytes() const {
  std::vector<std::byte> bytes;
  Append(sequences_, bytes);
  Append(query_items_, bytes);
  Append(key_items_, bytes);
  Append(blocks_, bytes);
  return bytes;
}

void AttentionBackwardPlan::PointTo(const std::byte* base,
                                    AttentionBackwardArgs& args) const {
  args.sequences = Take(sequences_, base);
  args.query_items = Take(query_items_, base);
  args.key_items = Take(key_items_, base);
  args.blocks = Take(blocks_, base);
  args.num_query_items = static_cast<int64_t>(query_items_.size());
  args.num_key_items = static_cast<int64_t>(key_items_.size());
}

}  // namespace octet::cuda
