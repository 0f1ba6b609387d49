// Which microbatch slot a token of a training call belongs to, on whatever rank
// it is. Tokens count over all ranks and slots one after the other. The same on
// every rank. Plain data.
#ifndef OCTET_WORKER_NN_SLOT_MAP_H_
#define OCTET_WORKER_NN_SLOT_MAP_H_

#include <algorithm>
#include <cstdint>
#include <vector>

namespace octet {

struct SlotMap {
  std::vector<int64_t> token_begin = {0};  // [S + 1] first token of each slot
  int64_t first_sink_slot = 0;  // slot 0 is called this in a GradientSink
  int64_t first_run_slot = 0;   // and this among the slots of the whole run

  int64_t num_slots() const {
    return static_cast<int64_t>(token_begin.size()) - 1;
  }
  // The slot, in [0, S), that the token lies in.
  int64_t SlotOf(int64_t token) const {
    return std::upper_bound(token_begin.begin(), token_begin.end(), token) -
           token_begin.begin() - 1;
  }
  // What names a token in dropout: the run's slot << 24 | token in the slot.
  int64_t RowKey(int64_t slot, int64_t token) const {
    return ((first_run_slot + slot) << 24) | (token - token_begin[slot]);
  }
};

}  // namespace octet

#endif  // OCTET_WORKER_NN_SLOT_MAP_H_
