#include "text/prefix_matcher.h"

namespace octet {

void PrefixMatcher::Add(absl::string_view key, int32_t id) {
  first_bytes_[static_cast<unsigned char>(key[0])] = true;
  uint32_t node = 0;
  for (const char byte : key) {
    const auto [it, inserted] = edges_.try_emplace(
        Edge(node, byte), static_cast<uint32_t>(node_ids_.size()));
    if (inserted) node_ids_.push_back(-1);
    node = it->second;
  }
  node_ids_[node] = id;
}

PrefixMatcher::Match PrefixMatcher::Longest(absl::string_view text) const {
  Match longest;
  if (text.empty() || !first_bytes_[static_cast<unsigned char>(text[0])]) {
    return longest;
  }
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto it = edges_.find(Edge(node, text[i]));
    if (it == edges_.end()) break;
    node = it->second;
    if (node_ids_[node] >= 0) longest = {i + 1, node_ids_[node]};
  }
  return longest;
}

}  // namespace octet
