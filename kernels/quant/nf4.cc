#include "kernels/quant/nf4.h"

#include <algorithm>
#include <cmath>

namespace octet {
namespace {

std::array<float, 256> MakeDynamicMap() {
  std::array<float, 256> map = {0.0f, 1.0f};
  size_t size = 2;
  double power = 1e-6;
  for (int i = 0; i < 7; ++i, power *= 10) {
    const int count = 1 << i;
    const float step = (1.0f - 0.1f) / static_cast<float>(count);
    // Equidistant numbers as torch.linspace gives them: from the nearer end.
    const auto number = [&](int j) {
      return static_cast<float>(j < (count + 1) / 2
                                    ? 0.1f + double{step} * j
                                    : 1.0 - double{step} * (count - j));
    };
    for (int j = 0; j < count; ++j) {
      const float mean = (number(j) + number(j + 1)) / 2;
      const float value = static_cast<float>(power) * mean;
      map[size++] = value;
      map[size++] = -value;
    }
  }
  std::sort(map.begin(), map.end());
  return map;
}

// Halfway between neighbours of the map.
std::array<float, 255> Midpoints() {
  const std::array<float, 256>& map = DynamicMap();
  std::array<float, 255> midpoints;
  for (size_t i = 0; i < midpoints.size(); ++i) {
    midpoints[i] = (map[i] + map[i + 1]) / 2;
  }
  return midpoints;
}

}  // namespace

const std::array<float, 256>& DynamicMap() {
  static const std::array<float, 256> map = MakeDynamicMap();
  return map;
}

float QuantizeNf4Block(const float* weights, uint8_t* codes) {
  float absmax = 0;
  for (int64_t i = 0; i < kNf4Block; ++i) {
    absmax = std::max(absmax, std::fabs(weights[i]));
  }
  const float inverse = absmax > 0 ? 1.0f / absmax : 0.0f;
  for (int64_t i = 0; i < kNf4Block; ++i) {
    const float value = weights[i] * inverse;
    uint8_t code = 0;
    for (float threshold : kNf4Thresholds) code += value > threshold;
    codes[i] = code;
  }
  return absmax;
}

Nf4Scales QuantizeNf4Scales(absl::Span<const float> absmax) {
  static const std::array<float, 255> thresholds = Midpoints();
  Nf4Scales out;
  if (absmax.empty()) return out;
  double sum = 0;
  for (float value : absmax) sum += value;
  out.mean = static_cast<float>(sum / static_cast<double>(absmax.size()));
  out.codes.reserve(absmax.size());
  for (size_t begin = 0; begin < absmax.size(); begin += kNf4NestedBlock) {
    const auto block = absmax.subspan(begin, kNf4NestedBlock);
    float scale = 0;
    for (float value : block) {
      scale = std::max(scale, std::fabs(value - out.mean));
    }
    const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
    for (float value : block) {
      const float normal = (value - out.mean) * inverse;
      // The first threshold that is not below: entries above it are larger.
      out.codes.push_back(static_cast<uint8_t>(
          std::lower_bound(thresholds.begin(), thresholds.end(), normal) -
          thresholds.begin()));
    }
    out.scales.push_back(scale);
  }
  return out;
}

}  // namespace octet
