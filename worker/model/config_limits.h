// Upper limits of a config's values: far above any model, low enough that every
// product of sizes (largest: L E 3 F H elements of 4 bytes, 2^61) stays inside
// int64.
#ifndef OCTET_WORKER_MODEL_CONFIG_LIMITS_H_
#define OCTET_WORKER_MODEL_CONFIG_LIMITS_H_

#include <cstdint>
#include <limits>

namespace octet {

inline constexpr int64_t kMaxVocab = int64_t{1} << 24;
inline constexpr int64_t kMaxHidden = int64_t{1} << 17;
inline constexpr int64_t kMaxFfn = int64_t{1} << 20;
inline constexpr int64_t kMaxLayers = 1024;
inline constexpr int64_t kMaxHeads = 4096;
inline constexpr int64_t kMaxHeadDim = 1024;
inline constexpr int64_t kMaxExperts = 1024;
inline constexpr int64_t kMaxPosition = int64_t{1} << 30;  // positions are i32
inline constexpr int64_t kMaxWindow = std::numeric_limits<int>::max();

}  // namespace octet

#endif  // OCTET_WORKER_MODEL_CONFIG_LIMITS_H_
