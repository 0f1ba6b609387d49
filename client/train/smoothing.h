// The smoothed curve of a loss plot, as LLaMA-Factory and Aurora draw it: an
// exponential moving average that starts at the first value,
//   s[0] = x[0],  s[i] = w s[i - 1] + (1 - w) x[i],
//   w = 1.8 (1 / (1 + exp(-0.05 n)) - 0.5),  n = number of values.
// Values that are not finite are passed over.
#ifndef OCTET_CLIENT_TRAIN_SMOOTHING_H_
#define OCTET_CLIENT_TRAIN_SMOOTHING_H_

#include <vector>

#include "absl/types/span.h"

namespace octet {

std::vector<double> Smooth(absl::Span<const double> values);

}  // namespace octet

#endif  // OCTET_CLIENT_TRAIN_SMOOTHING_H_
