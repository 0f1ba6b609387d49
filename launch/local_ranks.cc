#include "launch/local_ranks.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "worker/comm/local/local_group.h"

namespace octet {

absl::Status RunLocalRanks(
    int num_ranks, const std::function<absl::Status(Communicator&)>& run_rank,
    const std::function<void()>& meanwhile) {
  std::atomic<int> running{num_ranks};
  std::vector<std::unique_ptr<Communicator>> group = NewLocalGroup(num_ranks);
  std::vector<absl::Status> statuses(num_ranks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < num_ranks; ++rank) {
    threads.emplace_back([&, rank] {
      statuses[rank] = run_rank(*group[rank]);
      if (!statuses[rank].ok()) group[rank]->Abort(statuses[rank]);
      --running;
    });
  }
  while (running > 0) {
    meanwhile();
    absl::SleepFor(absl::Milliseconds(50));
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) OCTET_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

}  // namespace octet
