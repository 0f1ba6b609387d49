// Calls, bytes and time per operation of one Communicator. Thread-safe.
#ifndef OCTET_WORKER_COMM_COUNTERS_H_
#define OCTET_WORKER_COMM_COUNTERS_H_

#include <cstdint>
#include <mutex>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "worker/comm/communicator.h"

namespace octet {

class CommCounters {
 public:
  // One finished call, also when it failed.
  void Add(absl::string_view operation, int64_t bytes_sent,
           int64_t bytes_received, absl::Duration waited);

  // In the order in which operations were first seen.
  std::vector<OpCounters> Snapshot() const;

 private:
  mutable std::mutex mutex_;  // std: ThreadSanitizer sees it
  // A model has a handful of operations: a scan beats a map.
  std::vector<OpCounters> operations_;  // under mutex_
};

}  // namespace octet

#endif  // OCTET_WORKER_COMM_COUNTERS_H_
