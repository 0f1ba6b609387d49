// The distribution that Backend::Sample draws from, by the naive route: sort
// everything, filter one rule after the other.
#ifndef OCTET_TESTS_REFERENCE_REFERENCE_SAMPLING_H_
#define OCTET_TESTS_REFERENCE_REFERENCE_SAMPLING_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/backend.h"
#include "tests/reference/host_tensor.h"

namespace octet::test {

// Ids from the likeliest down, lowest id first on a tie.
std::vector<int32_t> DescendingOrder(absl::Span<const double> logits);

// Probability of every token, [V]; a one-hot row when temperature is 0.
// Penalties are computed in f32, as the backend does, so that ties are the same
// ties.
Values SamplingDistribution(absl::Span<const float> logits,
                            const SamplingRow& row);

}  // namespace octet::test

#endif  // OCTET_TESTS_REFERENCE_REFERENCE_SAMPLING_H_
