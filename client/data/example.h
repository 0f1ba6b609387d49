// What one row of the model's input is: a dialogue, a text, or a block of
// several that are packed.
#ifndef OCTET_CLIENT_DATA_EXAMPLE_H_
#define OCTET_CLIENT_DATA_EXAMPLE_H_

#include <cstdint>
#include <vector>

#include "proto/training.pb.h"

namespace octet {

inline constexpr int32_t kIgnoredLabel = -100;

struct Example {
  std::vector<int32_t> token_ids;
  std::vector<int32_t> labels;  // [token_ids] the token, or kIgnoredLabel
  // Where documents begin, ascending; the first is 0.
  std::vector<int32_t> starts = {0};
};

// Adds the example to a slot: as one sequence, or with `isolate` as one for
// each document.
void AddToSlot(const Example& example, bool isolate, v1::TrainingSlot& slot);

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_EXAMPLE_H_
