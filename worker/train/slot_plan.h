// Which rank computes which slots of a call.
#ifndef OCTET_WORKER_TRAIN_SLOT_PLAN_H_
#define OCTET_WORKER_TRAIN_SLOT_PLAN_H_

#include <cstdint>
#include <vector>

namespace octet {

// The slots of one ForwardBackward.
struct SlotPlan {
  int64_t first_slot = 0;  // slots pending before: what the tree calls slot 0
  // [R + 1]: rank r computes slots [rank_begin[r], rank_begin[r + 1]) of the
  // call (TrainingBatch::rank_slots); the last is their number.
  std::vector<int64_t> rank_begin;

  int64_t num_slots() const { return rank_begin.back(); }
  int64_t end_slot() const { return first_slot + num_slots(); }
};

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_SLOT_PLAN_H_
