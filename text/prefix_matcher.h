// Finds the longest of a set of strings that a text begins with: the
// user-defined pieces of a vocabulary, which are never cut or merged.
// A byte trie whose edges lie in one hash table. Immutable after the last Add,
// and then thread-safe.
#ifndef OCTET_TEXT_PREFIX_MATCHER_H_
#define OCTET_TEXT_PREFIX_MATCHER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace octet {

class PrefixMatcher {
 public:
  struct Match {
    size_t num_bytes = 0;  // 0: none of the strings
    int32_t id = -1;
  };

  // `key` must not be empty.
  void Add(absl::string_view key, int32_t id);
  Match Longest(absl::string_view text) const;

 private:
  static uint64_t Edge(uint32_t node, char byte) {
    return (uint64_t{node} << 8) | static_cast<unsigned char>(byte);
  }

  std::array<bool, 256> first_bytes_ = {};  // most texts stop here
  std::vector<int32_t> node_ids_ = {-1};    // id of the key that ends here
  absl::flat_hash_map<uint64_t, uint32_t> edges_;
};

}  // namespace octet

#endif  // OCTET_TEXT_PREFIX_MATCHER_H_
