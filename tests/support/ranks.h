// Runs the ranks of a group as threads of the test.
#ifndef OCTET_TESTS_SUPPORT_RANKS_H_
#define OCTET_TESTS_SUPPORT_RANKS_H_

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/comm/communicator.h"
#include "worker/comm/local/local_group.h"

namespace octet::test {

// Calls `body` with each rank's communicator, one thread per rank; returns what
// the ranks returned, in rank order. A rank that fails aborts the group, so
// that a test ends.
inline std::vector<absl::Status> RunRanks(
    int size, const std::function<absl::Status(Communicator&)>& body,
    absl::Duration timeout = absl::Seconds(60)) {
  LocalGroupOptions options;
  options.communicator.timeout = timeout;
  std::vector<std::unique_ptr<Communicator>> group =
      NewLocalGroup(size, options);
  std::vector<absl::Status> results(size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      results[rank] = body(*group[rank]);
      if (!results[rank].ok()) group[rank]->Abort(results[rank]);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return results;
}

}  // namespace octet::test

#endif  // OCTET_TESTS_SUPPORT_RANKS_H_
