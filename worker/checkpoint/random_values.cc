#include "worker/checkpoint/random_values.h"

#include <cmath>
#include <vector>

namespace octet {
namespace {

constexpr int kKnotBits = 14;
constexpr int kNumIntervals = 1 << kKnotBits;
constexpr int kFractionBits = 32 - kKnotBits;

// The mixer of splitmix64 (Steele, Lea, Flood 2014).
uint64_t Mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

double NormalCdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

double NormalDensity(double x) {
  return std::exp(-0.5 * x * x) / std::sqrt(2.0 * M_PI);
}

// knots[i] is the normal quantile of i / 2^14. The outermost two, which would
// be infinite, are those of a quarter of the last step.
const std::vector<float>& Knots() {
  static const std::vector<float>* knots = [] {
    auto* table = new std::vector<float>(kNumIntervals + 1);
    double x = 0.0;
    for (int i = kNumIntervals / 2; i >= 0; --i) {
      const double p = (i == 0 ? 0.25 : i) / kNumIntervals;
      // Newton's method from the neighbour; it converges in a few steps.
      for (int step = 0; step < 8; ++step) {
        x -= (NormalCdf(x) - p) / NormalDensity(x);
      }
      (*table)[i] = static_cast<float>(x);
      (*table)[kNumIntervals - i] = static_cast<float>(-x);
    }
    return table;
  }();
  return *knots;
}

// Standard normal number of a 32-bit probability.
float Quantile(const float* knots, uint32_t bits) {
  const uint32_t knot = bits >> kFractionBits;
  const float fraction =
      static_cast<float>(bits & ((1u << kFractionBits) - 1)) *
      (1.0f / (1u << kFractionBits));
  return knots[knot] + fraction * (knots[knot + 1] - knots[knot]);
}

}  // namespace

uint64_t RandomKey(uint64_t seed, absl::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ull;  // FNV-1a
  for (char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  }
  return Mix(hash ^ Mix(seed + 0x9e3779b97f4a7c15ull));
}

void FillNormal(uint64_t key, int64_t first_index, float std_dev,
                absl::Span<float> out) {
  const float* knots = Knots().data();
  // One hash makes two values; index i takes half i % 2 of hash i / 2.
  for (size_t i = 0; i < out.size();) {
    const uint64_t index = static_cast<uint64_t>(first_index) + i;
    const uint64_t bits = Mix(key + (index / 2) * 0x9e3779b97f4a7c15ull);
    if (index % 2 == 0) {
      out[i++] = std_dev * Quantile(knots, static_cast<uint32_t>(bits));
      if (i == out.size()) break;
    }
    out[i++] = std_dev * Quantile(knots, static_cast<uint32_t>(bits >> 32));
  }
}

}  // namespace octet
