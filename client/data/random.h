// Random numbers that are functions of what they are for, so that a position
// in a sequence needs no state, and every machine draws the same.
#ifndef OCTET_CLIENT_DATA_RANDOM_H_
#define OCTET_CLIENT_DATA_RANDOM_H_

#include <cstdint>
#include <vector>

namespace octet {

// What a number is drawn for: streams of one seed are independent.
struct RandomStream {
  uint64_t seed = 0;
  uint64_t purpose = 0;
  uint64_t part = 0;  // an epoch, a window, ...
};

// The draw number `index` of `stream`: 64 random bits, by SplitMix64 (Steele,
// Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
uint64_t RandomBits(const RandomStream& stream, uint64_t index);

// The same as a number in [0, 1).
double RandomUniform(const RandomStream& stream, uint64_t index);

// A random order of 0..count-1, by Fisher and Yates.
std::vector<uint32_t> RandomOrder(const RandomStream& stream, uint32_t count);

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_RANDOM_H_
