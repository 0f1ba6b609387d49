// What a rank computes on, as the program that starts it decides. The worker
// itself links no GPU code.
#ifndef OCTET_WORKER_DEVICE_RANK_DEVICE_H_
#define OCTET_WORKER_DEVICE_RANK_DEVICE_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace octet {

// Empty: the CPU backend and the host's memory. Called by the rank's thread.
struct RankDevice {
  std::function<absl::StatusOr<std::unique_ptr<Backend>>()> new_backend;
  // Device memory that is free now, all of it this rank's.
  std::function<absl::StatusOr<int64_t>()> free_bytes;
};

}  // namespace octet

#endif  // OCTET_WORKER_DEVICE_RANK_DEVICE_H_
