// Coordinator and workers on this machine, ranks as threads of this process or
// as processes under mpirun: what `octet serve` runs, and other commands when
// no server is named.
#ifndef OCTET_LAUNCH_LOCAL_SERVICE_H_
#define OCTET_LAUNCH_LOCAL_SERVICE_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/coordinator.h"
#include "launch/coordinator_flags.h"
#include "launch/flags.h"
#include "launch/worker_flags.h"

namespace octet {

struct LocalServiceFlags {
  int workers = 1;
  bool mpi = false;
  CoordinatorFlags coordinator;
  WorkerFlags worker;

  void AddTo(Flags& flags);
};

// A worker group that this program started, whichever way.
class WorkerGroup {
 public:
  virtual ~WorkerGroup() = default;
  // How it ended; nullopt while it runs.
  virtual std::optional<absl::Status> Ended() = 0;
  // Returns when it is gone. The coordinator has told it to shut down already,
  // if it ever came so far as to be connected.
  virtual void Join() = 0;
};

class LocalService {
 public:
  // Says what is wrong with the flags before anything starts. `program` leads
  // the sentence. Returns at once; the group is not ready yet.
  static absl::StatusOr<std::unique_ptr<LocalService>> Start(
      const std::string& program, const LocalServiceFlags& flags);
  // Stops without a drain.
  ~LocalService();

  // HOST:PORT of the coordinator.
  const std::string& address() const { return address_; }
  // How the workers ended; nullopt while they run.
  std::optional<absl::Status> Ended() { return group_->Ended(); }
  // Gives running requests this long; later calls do nothing.
  void Stop(absl::Duration drain);

 private:
  LocalService() = default;

  std::string address_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<WorkerGroup> group_;
  bool stopped_ = false;
};

}  // namespace octet

#endif  // OCTET_LAUNCH_LOCAL_SERVICE_H_
