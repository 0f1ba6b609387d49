#include <cmath>

#include "kernels/cuda/rope.h"

namespace octet::cuda {

std::vector<double> RopeTable(float theta, int head_dim) {
  const int half = head_dim / 2;
  std::vector<double> table(int64_t{kRopeTableRows} * half * 2);
  for (int i = 0; i < half; ++i) {
    const double frequency =
        std::pow(static_cast<double>(theta), -2.0 * i / head_dim);
    for (int digit = 0; digit < kRopeDigits; ++digit) {
      for (int64_t value = 0; value < kRopeDigitRows[digit]; ++value) {
        const double position = static_cast<double>(value << kRopeShift[digit]);
        double* to = &table[((kRopeFirstRow[digit] + value) * half + i) * 2];
        to[0] = std::cos(position * frequency);
        to[1] = std::sin(position * frequency);
      }
    }
  }
  return table;
}

}  // namespace octet::cuda
