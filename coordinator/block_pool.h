// The KV blocks of one rank: which are free, which are held by how many
// sequences, and which full blocks hold a known prefix (the prefix cache).
// Only ids are kept here; keys and values live on the rank.
//
// A block is in exactly one state: free (nothing worth keeping), held (one or
// more sequences use it), or cached (full, published, held by nobody; evicted
// least recently released first when no free block is left).
//
// A prefix is found by an exact key, the pair (content id of the parent block,
// the block's tokens), so there are no hash collisions. A content id stands
// for all tokens up to the end of a block and is never used twice.
//
// Pure and deterministic; not thread-safe.
// Tested in tests/coordinator/block_pool_test.cc.
#ifndef OCTET_COORDINATOR_BLOCK_POOL_H_
#define OCTET_COORDINATOR_BLOCK_POOL_H_

#include <cstdint>
#include <list>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"

namespace octet {

class BlockPool {
 public:
  // Parent of a sequence's first block.
  static constexpr int64_t kRootContent = 0;

  struct Prefix {
    std::vector<int32_t> blocks;
    int64_t content_id = kRootContent;  // of the last block
  };

  // `num_blocks` ids, [0, num_blocks), of `block_tokens` tokens each (> 0).
  BlockPool(int32_t num_blocks, int32_t block_tokens, bool prefix_cache);

  int32_t num_blocks() const { return static_cast<int32_t>(blocks_.size()); }
  // Blocks that Allocate can hand out: free and cached.
  int32_t num_available() const {
    return static_cast<int32_t>(free_.size() + cached_.size());
  }
  int32_t num_held() const { return num_blocks() - num_available(); }
  int32_t block_tokens() const { return block_tokens_; }

  // The longest published prefix of `tokens`, in whole blocks. Takes no hold;
  // valid until the next call that is not const.
  Prefix FindPrefix(absl::Span<const int32_t> tokens) const;
  // How many of `blocks` would leave the available set if held.
  int32_t CountCached(absl::Span<const int32_t> blocks) const;

  // Takes one more hold on each block (held or cached).
  void Hold(absl::Span<const int32_t> blocks);
  // A block with one hold and undefined contents; the least recently released
  // cached block is given up when none is free. REQUIRES: num_available() > 0.
  int32_t Allocate();
  // Gives up one hold on each block. The last of `blocks` becomes the first to
  // be evicted, so that a prefix outlives what follows it.
  void Release(absl::Span<const int32_t> blocks);

  // Declares that held `block` is full, is never written again and holds
  // `tokens` after the prefix `parent_content`. Returns the content id for the
  // chain's next block; when another block holds the same content, that one
  // stays the published one.
  int64_t Publish(int32_t block, int64_t parent_content,
                  absl::Span<const int32_t> tokens);

  // The contents of all blocks are worth nothing any more. REQUIRES: no block
  // is held.
  void ForgetContents();

 private:
  struct Key {
    int64_t parent_content;
    std::vector<int32_t> tokens;
    bool operator==(const Key& other) const {
      return parent_content == other.parent_content && tokens == other.tokens;
    }
    template <typename H>
    friend H AbslHashValue(H h, const Key& key) {
      return H::combine(std::move(h), key.parent_content, key.tokens);
    }
  };
  struct Entry {
    int32_t block;
    int64_t content_id;
  };
  struct Block {
    int32_t num_holds = 0;
    bool published = false;
    Key key;                             // when published
    std::list<int32_t>::iterator place;  // in cached_, when cached
  };

  const int32_t block_tokens_;
  const bool prefix_cache_;
  std::vector<Block> blocks_;
  std::vector<int32_t> free_;  // a stack
  std::list<int32_t> cached_;  // front = next to evict
  absl::flat_hash_map<Key, Entry> published_;
  int64_t next_content_id_ = kRootContent + 1;
};

}  // namespace octet

#endif  // OCTET_COORDINATOR_BLOCK_POOL_H_
