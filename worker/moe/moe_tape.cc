#include "worker/moe/moe_tape.h"

#include <algorithm>

namespace octet {

MoeTape::MoeTape(Backend* backend)
    : logits_memory(backend),
      ids_memory(backend),
      weights_memory(backend),
      in_memory(backend),
      hidden_memory(backend),
      u13_memory(backend),
      u2_memory(backend),
      out_memory(backend) {}

int64_t MoeTape::size_bytes() const {
  return static_cast<int64_t>(
      logits_memory.size_bytes() + ids_memory.size_bytes() +
      weights_memory.size_bytes() + in_memory.size_bytes() +
      hidden_memory.size_bytes() + u13_memory.size_bytes() +
      u2_memory.size_bytes() + out_memory.size_bytes());
}

int64_t MoeTape::Bytes(const MoeShape& shape, int64_t num_tokens,
                       int64_t num_expert_rows) {
  const int64_t width = static_cast<int64_t>(SizeOf(shape.dtype));
  const int64_t pairs = num_tokens * shape.top_k;
  // Alone in the group the returned rows are the experts'.
  return 4 * num_tokens * shape.num_experts + 8 * pairs +
         width * num_expert_rows * (shape.hidden_dim + 2 * shape.ffn_dim) +
         width * std::max(pairs, num_expert_rows) * shape.hidden_dim;
}

}  // namespace octet
