#include "worker/train/slot_plan.h"

#include <numeric>

namespace octet {

std::vector<int64_t> AssignSlots(absl::Span<const int64_t> slot_tokens,
                                 int num_ranks) {
  const int64_t total =
      std::accumulate(slot_tokens.begin(), slot_tokens.end(), int64_t{0});
  std::vector<int64_t> rank_begin(num_ranks + 1, 0);
  int64_t before = 0;
  for (int64_t tokens : slot_tokens) {
    const int64_t rank = (2 * before + tokens) * num_ranks / (2 * total);
    ++rank_begin[rank + 1];
    before += tokens;
  }
  std::partial_sum(rank_begin.begin(), rank_begin.end(), rank_begin.begin());
  return rank_begin;
}

}  // namespace octet
