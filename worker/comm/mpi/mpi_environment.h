// MPI's life in this process, and the communicator over it. Nothing outside
// this folder includes mpi.h.
//
// Started without mpirun a process is a group of one rank. The environment must
// outlive its communicators. One thread at a time uses it, except RequestAbort.
#ifndef OCTET_WORKER_COMM_MPI_MPI_ENVIRONMENT_H_
#define OCTET_WORKER_COMM_MPI_MPI_ENVIRONMENT_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/comm/communicator.h"
#include "worker/comm/transport_communicator.h"

namespace octet {

class MpiEnvironment {
 public:
  // MPI_Init_thread; once per process. FAILED_PRECONDITION when MPI was started
  // before or gives less than MPI_THREAD_SERIALIZED.
  static absl::StatusOr<std::unique_ptr<MpiEnvironment>> Init(int* argc,
                                                              char*** argv);
  // MPI_Finalize, which waits for all ranks. After a failure of the group it
  // would wait for ever: then the process ends without it, and mpirun ends the
  // other ranks and reports an error.
  ~MpiEnvironment();
  MpiEnvironment(const MpiEnvironment&) = delete;
  MpiEnvironment& operator=(const MpiEnvironment&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  int local_rank() const {
    return local_rank_;
  }  // among the ranks of this host
  int local_size() const { return local_size_; }
  const std::string& host() const { return host_; }

  // Makes this rank's pending and later collectives return UNAVAILABLE within
  // milliseconds. Async-signal-safe: for a SIGTERM handler, since mpirun sends
  // SIGTERM to the survivors of a rank's death. `reason` must live for ever.
  void RequestAbort(const char* reason) {
    abort_reason_.store(reason, std::memory_order_release);
  }
  const char* abort_reason() const {
    return abort_reason_.load(std::memory_order_acquire);
  }

  // For main() after a failure, before it leaves: lets peers see their error
  // and mpirun end the job by itself, until a little after RequestAbort, or for
  // `grace`. The first rank to leave makes mpirun end the others; and when a
  // host has gone off the network, mpirun ends only if it notices that (7 s,
  // see launch/mpi) before a rank leaves.
  void AwaitTermination(absl::Duration grace) const;

 private:
  friend class MpiChannel;
  MpiEnvironment() = default;

  int rank_ = 0;
  int size_ = 1;
  int local_rank_ = 0;
  int local_size_ = 1;
  std::string host_;
  std::atomic<const char*> abort_reason_{nullptr};
  std::atomic<bool> broken_{false};
  std::mutex mpi_mutex_;  // held while a thread calls MPI
};

// Collective over all ranks of the environment; waits for them as long as a
// collective does.
absl::StatusOr<std::unique_ptr<Communicator>> NewMpiCommunicator(
    MpiEnvironment& environment, CommunicatorOptions options = {});

}  // namespace octet

#endif  // OCTET_WORKER_COMM_MPI_MPI_ENVIRONMENT_H_
