// Philox4x32-10, the counter-based random number generator of Salmon, Moraes,
// Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011): a
// pure function of counter and key, so a draw can be repeated anywhere and in
// any order. Shared by all backends. Tested against the authors' vectors in
// tests/kernels/sampling_test.cc.
#ifndef OCTET_KERNELS_PHILOX_H_
#define OCTET_KERNELS_PHILOX_H_

#include <array>
#include <cstdint>

namespace octet {

constexpr std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter,
                                         std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

// The number in [0, 1), a multiple of 2^-53, that belongs to `position` of the
// sequence drawn with `seed`.
constexpr double UniformAt(uint64_t seed, int64_t position) {
  const uint64_t count = static_cast<uint64_t>(position);
  const std::array<uint32_t, 4> bits = Philox(
      {static_cast<uint32_t>(count), static_cast<uint32_t>(count >> 32), 0, 0},
      {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const uint64_t word = (uint64_t{bits[1]} << 32) | bits[0];
  return static_cast<double>(word >> 11) * 0x1p-53;
}

}  // namespace octet

#endif  // OCTET_KERNELS_PHILOX_H_
