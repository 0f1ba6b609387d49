#include "worker/model/kv_cache.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace octet {

absl::StatusOr<KvCache> KvCache::Create(Backend& backend,
                                        const ModelConfig& config, DType dtype,
                                        int64_t num_blocks, int block_tokens) {
  if (num_blocks < 1 || block_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("KV cache: ", num_blocks, " blocks of ", block_tokens,
                     " tokens, expected at least one of one"));
  }
  KvCache cache;
  cache.shape_.dtype = dtype;
  cache.shape_.num_blocks = num_blocks;
  cache.shape_.num_kv_heads = config.num_kv_heads;
  cache.shape_.block_tokens = block_tokens;
  cache.shape_.head_dim = config.head_dim;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    OCTET_ASSIGN_OR_RETURN(std::unique_ptr<Buffer> buffer,
                           backend.Allocate(2 * cache.shape_.bytes_each()));
    cache.buffers_.push_back(std::move(buffer));
  }
  return cache;
}

int64_t KvCache::BytesPerBlock(const ModelConfig& config, DType dtype,
                               int block_tokens) {
  return int64_t{2} * config.num_layers * config.kv_dim() * block_tokens *
         static_cast<int64_t>(SizeOf(dtype));
}

KvCacheView KvCache::layer(int layer) const {
  KvCacheView view = shape_;
  view.keys = buffers_[layer]->data();
  view.values = static_cast<char*>(view.keys) + shape_.bytes_each();
  return view;
}

int64_t KvCache::size_bytes() const {
  int64_t total = 0;
  for (const auto& buffer : buffers_) {
    total += static_cast<int64_t>(buffer->size_bytes());
  }
  return total;
}

}  // namespace octet
