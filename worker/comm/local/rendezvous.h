// Where the threads of a local group meet: a barrier with deadlines that knows
// who is missing, and the group's failure. Thread-safe; `rank` says who calls.
//
// Ranks pass the same phases 0, 1, 2, ... together. What a rank wrote before it
// entered a phase, all ranks may read after that phase.
#ifndef OCTET_WORKER_COMM_LOCAL_RENDEZVOUS_H_
#define OCTET_WORKER_COMM_LOCAL_RENDEZVOUS_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace octet {

class Rendezvous {
 public:
  explicit Rendezvous(int size);

  enum class Outcome { kAll, kDeadline, kFailed };
  // Enters this rank's next phase and waits until every rank has.
  Outcome Enter(int rank, std::chrono::steady_clock::time_point deadline);

  // Ranks that have not entered the phase that `rank` is in.
  std::vector<int> Missing(int rank) const;

  // The first failure stays. Wakes everybody.
  void Fail(absl::StatusCode code, std::string reason);
  struct Reason {
    absl::StatusCode code = absl::StatusCode::kOk;
    std::string text;
  };
  Reason failure() const;

  // A rank reads its peers' buffers only between a BeginReading that returned
  // true and EndReading. After a failure it returns false, and AwaitReaders
  // returns once nobody reads any more: then buffers may go.
  bool BeginReading(int rank);
  void EndReading(int rank);
  void AwaitReaders() const;

  // This rank enters no further phase.
  void Leave(int rank);

 private:
  struct alignas(64) Slot {
    std::atomic<int64_t> entered{0};  // number of phases
    std::atomic<bool> reading{false};
    std::atomic<bool> left{false};
  };

  bool Complete(int64_t phase) const;
  bool WaitAwake(int64_t phase) const;
  Outcome Sleep(int rank, int64_t phase,
                std::chrono::steady_clock::time_point deadline);
  void WakeAll();
  void FailIfMissingLeft(int rank);

  const int size_;
  const bool spin_;  // there is a core for every rank
  const std::unique_ptr<Slot[]> slots_;
  alignas(64) std::atomic<int64_t> entries_{0};  // of all ranks, all phases
  alignas(64) std::atomic<uint32_t> epoch_{0};   // futex: phases and failures
  std::atomic<int> sleepers_{0};
  std::atomic<bool> failed_{false};
  mutable std::mutex mutex_;  // std: ThreadSanitizer sees it
  Reason failure_;            // under mutex_
};

}  // namespace octet

#endif  // OCTET_WORKER_COMM_LOCAL_RENDEZVOUS_H_
