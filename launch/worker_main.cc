// octet-worker: one worker rank as an MPI process. The only program that links
// MPI.
//
//   mpirun -n 4 octet-worker --model DIR --coordinator HOST:PORT
#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "launch/command.h"
#include "launch/flags.h"
#include "launch/shutdown_signal.h"
#include "launch/worker_flags.h"
#include "worker/comm/mpi/mpi_environment.h"
#include "worker/device/cuda_rank.h"

namespace octet {
namespace {

// After a failure of the group: long enough for mpirun to notice a host that
// went off the network (7 s) before a rank leaves.
constexpr absl::Duration kGroupFailureGrace = absl::Seconds(10);
// After a failure of this rank alone: long enough for its peers to learn why.
constexpr absl::Duration kOwnFailureGrace = absl::Seconds(1);

// mpirun sends SIGTERM to the survivors when a rank dies, some time before it
// kills them: enough to say so to the coordinator. Ends with the object.
class AbortOnSignal {
 public:
  explicit AbortOnSignal(MpiEnvironment& environment)
      : thread_([this, &environment] {
          if (WaitForShutdownSignal([this] { return done_.load(); })) {
            environment.RequestAbort(
                "the launcher asked this rank to end (SIGTERM), as it does "
                "when another rank died");
          }
        }) {}
  ~AbortOnSignal() {
    done_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> done_{false};
  std::thread thread_;
};

absl::Status Run(const Args& args, MpiEnvironment& environment) {
  std::string coordinator = "127.0.0.1:50051";
  WorkerFlags worker_flags;
  Flags flags(
      "octet worker",
      "One rank of a worker group; start as many as you want with mpirun.");
  flags.Add("coordinator", &coordinator, "host:port of the coordinator");
  worker_flags.AddTo(flags);
  OCTET_ASSIGN_OR_RETURN(const bool go_on, flags.Parse(args));
  if (!go_on) return absl::OkStatus();
  OCTET_ASSIGN_OR_RETURN(WorkerOptions options,
                         worker_flags.ToOptions("octet worker", coordinator));
  CommunicatorOptions communicator_options;
  communicator_options.timeout = worker_flags.collective_timeout;
  OCTET_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> communicator,
                         NewMpiCommunicator(environment, communicator_options));
  const AbortOnSignal abort_on_signal(environment);
  if (worker_flags.device == "cuda") {
    OCTET_ASSIGN_OR_RETURN(
        CudaRank rank,
        NewCudaRank(std::move(communicator), communicator_options.timeout));
    communicator = std::move(rank.communicator);
    options.device = std::move(rank.device);
  }
  return RunWorkerRank(options, *communicator);
}

int Main(int argc, char** argv) {
  BlockShutdownSignals();  // before MPI and gRPC start their threads
  absl::StatusOr<std::unique_ptr<MpiEnvironment>> environment =
      MpiEnvironment::Init(&argc, &argv);
  if (!environment.ok()) {
    std::fprintf(stderr, "%s\n",
                 std::string(environment.status().message()).c_str());
    return 1;
  }
  SetLogTag(absl::StrCat("rank ", (*environment)->rank()));
  const absl::Status status = Run(Args(argv + 1, argv + argc), **environment);
  if (status.ok()) return 0;
  // Wrong usage is the same on every rank and said once; a failure is said by
  // every rank that saw it.
  const bool usage = absl::IsInvalidArgument(status);
  if (!usage || (*environment)->rank() == 0) {
    std::fprintf(
        stderr, "%s\n",
        absl::StrCat(
            usage ? "" : absl::StrCat("rank ", (*environment)->rank(), ": "),
            status.message())
            .c_str());
  }
  if (usage) return 2;
  (*environment)
      ->AwaitTermination(FailureOf(status).has_value() ? kGroupFailureGrace
                                                       : kOwnFailureGrace);
  return 1;
}

}  // namespace
}  // namespace octet

int main(int argc, char** argv) { return octet::Main(argc, argv); }
