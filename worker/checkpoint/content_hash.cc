#include "worker/checkpoint/content_hash.h"

#include <bit>
#include <cstring>

namespace octet {
namespace {

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87;
constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4F;
constexpr uint64_t kPrime3 = 0x165667B19E3779F9;
constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63;
constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5;

static_assert(std::endian::native == std::endian::little);

template <typename T>
T Load(const unsigned char* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

uint64_t Round(uint64_t lane, uint64_t input) {
  return std::rotl(lane + input * kPrime2, 31) * kPrime1;
}

uint64_t MergeLane(uint64_t hash, uint64_t lane) {
  return (hash ^ Round(0, lane)) * kPrime1 + kPrime4;
}

}  // namespace

uint64_t ContentHash(const void* data, size_t num_bytes, uint64_t seed) {
  const unsigned char* next = static_cast<const unsigned char*>(data);
  const unsigned char* const end = next + num_bytes;
  uint64_t hash = seed + kPrime5;
  if (num_bytes >= 32) {
    uint64_t lanes[4] = {seed + kPrime1 + kPrime2, seed + kPrime2, seed,
                         seed - kPrime1};
    for (; end - next >= 32; next += 32) {
      for (int i = 0; i < 4; ++i) {
        lanes[i] = Round(lanes[i], Load<uint64_t>(next + 8 * i));
      }
    }
    hash = std::rotl(lanes[0], 1) + std::rotl(lanes[1], 7) +
           std::rotl(lanes[2], 12) + std::rotl(lanes[3], 18);
    for (uint64_t lane : lanes) hash = MergeLane(hash, lane);
  }
  hash += num_bytes;
  for (; end - next >= 8; next += 8) {
    hash = std::rotl(hash ^ Round(0, Load<uint64_t>(next)), 27) * kPrime1 +
           kPrime4;
  }
  if (end - next >= 4) {
    hash = std::rotl(hash ^ (Load<uint32_t>(next) * kPrime1), 23) * kPrime2 +
           kPrime3;
    next += 4;
  }
  for (; next < end; ++next) {
    hash = std::rotl(hash ^ (*next * kPrime5), 11) * kPrime1;
  }
  hash = (hash ^ (hash >> 33)) * kPrime2;
  hash = (hash ^ (hash >> 29)) * kPrime3;
  return hash ^ (hash >> 32);
}

}  // namespace octet
