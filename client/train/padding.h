// Padding, which Octet's microbatches do not have, for those who want it in the
// router's statistics.
#ifndef OCTET_CLIENT_TRAIN_PADDING_H_
#define OCTET_CLIENT_TRAIN_PADDING_H_

#include <cstdint>
#include <vector>

#include "proto/training.pb.h"

namespace octet {

int64_t NumTokens(const v1::TrainingSlot& slot);

// Adds `padding_id`, not learnt, to the end of each row (its last sequence)
// until it is as long as the longest. REQUIRES: each row has a sequence.
void PadToLongest(int32_t padding_id, std::vector<v1::TrainingSlot>& rows);

}  // namespace octet

#endif  // OCTET_CLIENT_TRAIN_PADDING_H_
