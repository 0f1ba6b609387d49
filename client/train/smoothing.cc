#include "client/train/smoothing.h"

#include <cmath>

namespace octet {

std::vector<double> Smooth(absl::Span<const double> values) {
  const double n = static_cast<double>(values.size());
  const double weight = 1.8 * (1 / (1 + std::exp(-0.05 * n)) - 0.5);
  std::vector<double> smooth(values.begin(), values.end());
  double last = std::nan("");
  for (double& value : smooth) {
    if (!std::isfinite(value)) continue;
    last = std::isfinite(last) ? weight * last + (1 - weight) * value : value;
    value = last;
  }
  return smooth;
}

}  // namespace octet
