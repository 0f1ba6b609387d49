#include "coordinator/block_pool.h"

#include <utility>

#include "base/logging.h"

namespace octet {

BlockPool::BlockPool(int32_t num_blocks, int32_t block_tokens,
                     bool prefix_cache)
    : block_tokens_(block_tokens),
      prefix_cache_(prefix_cache),
      blocks_(num_blocks) {
  OCTET_CHECK(block_tokens > 0) << block_tokens;
  free_.reserve(num_blocks);
  for (int32_t block = num_blocks - 1; block >= 0; --block) {
    free_.push_back(block);
  }
}

BlockPool::Prefix BlockPool::FindPrefix(
    absl::Span<const int32_t> tokens) const {
  Prefix prefix;
  if (!prefix_cache_) return prefix;
  const size_t step = block_tokens_;
  for (size_t begin = 0; begin + step <= tokens.size(); begin += step) {
    const auto piece = tokens.subspan(begin, step);
    const auto it =
        published_.find(Key{prefix.content_id, {piece.begin(), piece.end()}});
    if (it == published_.end()) break;
    prefix.blocks.push_back(it->second.block);
    prefix.content_id = it->second.content_id;
  }
  return prefix;
}

int32_t BlockPool::CountCached(absl::Span<const int32_t> blocks) const {
  int32_t count = 0;
  for (int32_t block : blocks) count += blocks_[block].num_holds == 0;
  return count;
}

void BlockPool::Hold(absl::Span<const int32_t> blocks) {
  for (int32_t id : blocks) {
    Block& block = blocks_[id];
    OCTET_CHECK(block.num_holds > 0 || block.published)
        << "block " << id << " is free";
    if (block.num_holds++ == 0) cached_.erase(block.place);
  }
}

int32_t BlockPool::Allocate() {
  OCTET_CHECK(num_available() > 0) << "no block is available";
  int32_t id;
  if (!free_.empty()) {
    id = free_.back();
    free_.pop_back();
  } else {
    id = cached_.front();
    cached_.pop_front();
    published_.erase(blocks_[id].key);
    blocks_[id].published = false;
    blocks_[id].key = {};
  }
  blocks_[id].num_holds = 1;
  return id;
}

void BlockPool::Release(absl::Span<const int32_t> blocks) {
  for (size_t i = blocks.size(); i-- > 0;) {
    Block& block = blocks_[blocks[i]];
    OCTET_CHECK(block.num_holds > 0) << "block " << blocks[i] << " is not held";
    if (--block.num_holds > 0) continue;
    if (block.published) {
      block.place = cached_.insert(cached_.end(), blocks[i]);
    } else {
      free_.push_back(blocks[i]);
    }
  }
}

int64_t BlockPool::Publish(int32_t block, int64_t parent_content,
                           absl::Span<const int32_t> tokens) {
  OCTET_CHECK(blocks_[block].num_holds > 0 && !blocks_[block].published)
      << "block " << block;
  OCTET_CHECK(static_cast<int32_t>(tokens.size()) == block_tokens_);
  if (!prefix_cache_) return kRootContent;
  Key key{parent_content, {tokens.begin(), tokens.end()}};
  const auto [it, inserted] =
      published_.try_emplace(key, Entry{block, next_content_id_});
  if (inserted) {
    ++next_content_id_;
    blocks_[block].published = true;
    blocks_[block].key = std::move(key);
  }
  return it->second.content_id;
}

void BlockPool::ForgetContents() {
  OCTET_CHECK(num_held() == 0) << num_held() << " blocks are held";
  for (int32_t id : cached_) {
    blocks_[id].published = false;
    blocks_[id].key = {};
    free_.push_back(id);
  }
  cached_.clear();
  published_.clear();
}

}  // namespace octet
