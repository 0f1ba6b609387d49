#include "client/data/random.h"

#include <numeric>
#include <utility>

namespace octet {
namespace {

constexpr uint64_t kGamma = 0x9E3779B97F4A7C15;  // 2^64 / the golden ratio

uint64_t Mix(uint64_t bits) {
  bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9;
  bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB;
  return bits ^ (bits >> 31);
}

}  // namespace

uint64_t RandomBits(const RandomStream& stream, uint64_t index) {
  uint64_t state = Mix(stream.seed + kGamma);
  state = Mix((state ^ stream.purpose) + kGamma);
  state = Mix((state ^ stream.part) + kGamma);
  return Mix(state + (index + 1) * kGamma);
}

double RandomUniform(const RandomStream& stream, uint64_t index) {
  constexpr double kUnit = 1.0 / (uint64_t{1} << 53);  // doubles have 53 bits
  return static_cast<double>(RandomBits(stream, index) >> 11) * kUnit;
}

std::vector<uint32_t> RandomOrder(const RandomStream& stream, uint32_t count) {
  std::vector<uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0u);
  for (uint32_t left = count; left > 1; --left) {
    // The high word of the product: 0 to left - 1, even to about 2^-32.
    const auto product =
        static_cast<unsigned __int128>(RandomBits(stream, left)) * left;
    std::swap(order[left - 1], order[static_cast<uint32_t>(product >> 64)]);
  }
  return order;
}

}  // namespace octet
