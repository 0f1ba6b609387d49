// Weights of any shape made in memory, for benchmarks: random rows, repeated
// (the time of a step does not depend on the values, making them all different
// would).
#ifndef OCTET_LAUNCH_RANDOM_WEIGHTS_H_
#define OCTET_LAUNCH_RANDOM_WEIGHTS_H_

#include <atomic>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "worker/model/config.h"
#include "worker/model/weights.h"

namespace octet {

// The weights of a rank that owns `experts`. Adds the bytes made to
// `bytes_done` on the way.
absl::StatusOr<ModelWeights> MakeRandomWeights(
    Backend& backend, Stream& stream, const ModelConfig& config, DType dtype,
    absl::Span<const int> experts, std::atomic<int64_t>& bytes_done);

}  // namespace octet

#endif  // OCTET_LAUNCH_RANDOM_WEIGHTS_H_
