// Normally distributed numbers that depend on a key and an index alone, so that
// any piece of a tensor can be made on any thread, on any machine.
//
// A 32-bit hash of (key, index) is the probability; its normal quantile is
// interpolated linearly between 2^14 exact ones. Tails end at 4.4 sigma.
// Thread-safe.
#ifndef OCTET_WORKER_CHECKPOINT_RANDOM_VALUES_H_
#define OCTET_WORKER_CHECKPOINT_RANDOM_VALUES_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace octet {

// The key of the tensor `name` in a checkpoint made from `seed`.
uint64_t RandomKey(uint64_t seed, absl::string_view name);

// out[i] = the value at index first_index + i, times `std_dev`.
void FillNormal(uint64_t key, int64_t first_index, float std_dev,
                absl::Span<float> out);

}  // namespace octet

#endif  // OCTET_WORKER_CHECKPOINT_RANDOM_VALUES_H_
