// The flags of a coordinator, as `octet serve` and `octet coordinator` take
// them.
#ifndef OCTET_LAUNCH_COORDINATOR_FLAGS_H_
#define OCTET_LAUNCH_COORDINATOR_FLAGS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/coordinator.h"
#include "launch/flags.h"

namespace octet {

struct CoordinatorFlags {
  std::string listen = "127.0.0.1:50051";
  std::string tokenizer;
  int max_waiting = 256;
  int max_running_per_rank = 64;
  bool no_prefix_cache = false;
  absl::Duration stall_after = absl::Seconds(30);
  absl::Duration drain = absl::Seconds(5);

  void AddTo(Flags& flags);
  // A running coordinator for the checkpoint in `model_dir` (empty: for
  // whatever group comes). INVALID_ARGUMENT names the flag. `program` leads the
  // sentence.
  absl::StatusOr<std::unique_ptr<Coordinator>> Start(
      const std::string& program, const std::string& model_dir) const;
  // host:port that a client or worker dials. A coordinator that listens
  // everywhere is dialled on this host.
  std::string Address(const Coordinator& coordinator) const;
};

}  // namespace octet

#endif  // OCTET_LAUNCH_COORDINATOR_FLAGS_H_
