#include "worker/train/initial_values.h"

#include <algorithm>
#include <cmath>

#include "kernels/philox.h"
#include "worker/checkpoint/random_values.h"

namespace octet {

void FillFreshAdapter(const Parameter& parameter, uint64_t seed, int64_t begin,
                      absl::Span<float> out) {
  if (parameter.weight.part == WeightPart::kLoraB) {
    std::fill(out.begin(), out.end(), 0.0f);
    return;
  }
  const uint64_t key = RandomKey(seed, parameter.name);
  const double bound = 1.0 / std::sqrt(static_cast<double>(parameter.cols));
  for (size_t i = 0; i < out.size(); ++i) {
    const double uniform = UniformAt(key, begin + static_cast<int64_t>(i));
    out[i] = static_cast<float>((2.0 * uniform - 1.0) * bound);
  }
}

}  // namespace octet
