// Keys and values of a rank's sequences, in blocks of a fixed number of tokens,
// for every layer. Which block belongs to whom is the coordinator's business.
//
// Threads: one at a time. The backend outlives it.
#ifndef OCTET_WORKER_MODEL_KV_CACHE_H_
#define OCTET_WORKER_MODEL_KV_CACHE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "worker/model/config.h"

namespace octet {

class KvCache {
 public:
  // dtype f32 or bf16; num_blocks and block_tokens at least 1. Contents are
  // undefined: attention reads positions that were written only.
  // RESOURCE_EXHAUSTED names the size.
  static absl::StatusOr<KvCache> Create(Backend& backend,
                                        const ModelConfig& config, DType dtype,
                                        int64_t num_blocks, int block_tokens);

  // Bytes that one block takes over all layers:
  // 2 (keys, values) L N_kv D block_tokens sizeof(dtype).
  static int64_t BytesPerBlock(const ModelConfig& config, DType dtype,
                               int block_tokens);

  KvCacheView layer(int layer) const;
  int64_t num_blocks() const { return shape_.num_blocks; }
  int block_tokens() const { return shape_.block_tokens; }
  int64_t size_bytes() const;

 private:
  KvCacheView shape_;                             // without memory
  std::vector<std::unique_ptr<Buffer>> buffers_;  // [L] keys, then values
};

}  // namespace octet

#endif  // OCTET_WORKER_MODEL_KV_CACHE_H_
