// What the trained parameters are when a run begins: the model's weights, and
// of adapters A uniform in (-1 / sqrt(k), 1 / sqrt(k)) (PEFT's
// kaiming_uniform_(a = sqrt(5)) of [r, k]) and B zero, or an adapter's values.
//
// Random values depend on seed, name and element alone. Thread-safe.
#ifndef OCTET_WORKER_TRAIN_INITIAL_VALUES_H_
#define OCTET_WORKER_TRAIN_INITIAL_VALUES_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/train/parameters.h"

namespace octet {

// Elements [begin, begin + out.size()) of a fresh adapter's parameter.
void FillFreshAdapter(const Parameter& parameter, uint64_t seed, int64_t begin,
                      absl::Span<float> out);

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_INITIAL_VALUES_H_
