// octet serve: coordinator and workers on this machine, ranks as threads of
// this process or, with --mpi, as processes.
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/client.h"
#include "coordinator/coordinator.h"
#include "launch/child_process.h"
#include "launch/command.h"
#include "launch/coordinator_flags.h"
#include "launch/flags.h"
#include "launch/shutdown_signal.h"
#include "launch/worker_flags.h"
#include "worker/model/config.h"
#include "worker/moe/placement.h"

namespace octet {
namespace {

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

class ThreadGroup : public WorkerGroup {
 public:
  ThreadGroup(WorkerOptions options, int ranks, absl::Duration timeout)
      : thread_([this, options = std::move(options), ranks, timeout]() mutable {
          options.cancelled = [this] { return cancelled_.load(); };
          status_ = RunLocalWorkers(options, ranks, timeout);
          ended_ = true;
        }) {}
  ~ThreadGroup() override { Join(); }

  std::optional<absl::Status> Ended() override {
    if (!ended_) return std::nullopt;
    return status_;
  }
  void Join() override {
    cancelled_ = true;
    if (thread_.joinable()) thread_.join();
  }

 private:
  absl::Status status_;  // written before ended_
  std::atomic<bool> ended_{false};
  std::atomic<bool> cancelled_{false};
  std::thread thread_;
};

class ProcessGroup : public WorkerGroup {
 public:
  explicit ProcessGroup(ChildProcess process) : process_(std::move(process)) {}

  std::optional<absl::Status> Ended() override {
    const std::optional<int> code = process_.ExitCode();
    if (!code.has_value()) return std::nullopt;
    if (*code == 0) return absl::OkStatus();
    return absl::UnavailableError(
        absl::StrCat("octet serve: the worker processes ended with exit code ",
                     *code, "; their messages are above"));
  }
  void Join() override { process_.Stop(absl::Seconds(10)); }

 private:
  ChildProcess process_;
};

absl::StatusOr<std::unique_ptr<WorkerGroup>> StartProcesses(
    const WorkerFlags& flags, int ranks, const std::string& coordinator) {
  std::vector<std::string> argv = {"mpirun",    "--oversubscribe",
                                   "--bind-to", "none",
                                   "-n",        absl::StrCat(ranks)};
  std::map<std::string, std::string> environment;
  if (geteuid() == 0) {  // Open MPI wants to be told twice that root is meant
    environment = {{"OMPI_ALLOW_RUN_AS_ROOT", "1"},
                   {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"}};
  }
  argv.push_back(absl::StrCat(ProgramDirectory(), "/octet-worker"));
  argv.push_back(absl::StrCat("--coordinator=", coordinator));
  for (const std::string& argument : flags.ToArguments())
    argv.push_back(argument);
  OCTET_ASSIGN_OR_RETURN(ChildProcess process,
                         ChildProcess::Start(argv, environment));
  return std::make_unique<ProcessGroup>(std::move(process));
}

// Runs until a signal comes or the group ends; says when the service is ready.
absl::Status Supervise(WorkerGroup& group, const std::string& address,
                       int ranks) {
  Client client(address);
  bool ready = false;
  std::optional<absl::Status> ended;
  const bool signalled = WaitForShutdownSignal([&] {
    ended = group.Ended();
    if (!ready && !ended.has_value()) {
      const absl::StatusOr<v1::GetInfoResponse> info = client.GetInfo();
      ready = info.ok() && info->state() == v1::GROUP_STATE_READY;
      if (ready) {
        std::printf("octet is ready on %s (%d workers)\n", address.c_str(),
                    ranks);
        std::fflush(stdout);
      }
    }
    return ended.has_value();
  });
  if (signalled) return absl::OkStatus();
  if (ended->ok())
    return absl::UnavailableError(
        "octet serve: the workers ended by themselves");
  return *ended;
}

}  // namespace

absl::Status RunServe(const Args& args) {
  int ranks = 1;
  bool mpi = false;
  CoordinatorFlags coordinator_flags;
  WorkerFlags worker_flags;
  Flags flags(
      "octet serve",
      "Serves a model on this machine: a coordinator and worker ranks.");
  flags.Add("workers", &ranks, "worker ranks", {.min = 1, .max = 1024});
  flags.Add("mpi", &mpi,
            "ranks are processes under mpirun; otherwise threads of this one");
  worker_flags.AddTo(flags);
  coordinator_flags.AddTo(flags);
  OCTET_ASSIGN_OR_RETURN(const bool go_on, flags.Parse(args));
  if (!go_on) return absl::OkStatus();

  // What is wrong is said before anything starts.
  OCTET_RETURN_IF_ERROR(worker_flags.ToOptions("octet serve", "").status());
  if (worker_flags.device != "cpu" && !mpi) {
    return absl::InvalidArgumentError(absl::StrCat(
        "octet serve: --device is '", worker_flags.device,
        "', expected cpu without --mpi, since each GPU has its own process"));
  }
  OCTET_ASSIGN_OR_RETURN(const ModelConfig config,
                         LoadModelConfig(worker_flags.model));
  const absl::StatusOr<Placement> placement =
      Placement::Parse(worker_flags.placement, config.num_experts, ranks);
  if (!placement.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "octet serve: --placement: ", placement.status().message()));
  }
  OCTET_ASSIGN_OR_RETURN(
      const std::unique_ptr<Coordinator> coordinator,
      coordinator_flags.Start("octet serve", worker_flags.model));
  const std::string address = coordinator_flags.Address(*coordinator);
  OCTET_ASSIGN_OR_RETURN(const WorkerOptions options,
                         worker_flags.ToOptions("octet serve", address));
  std::unique_ptr<WorkerGroup> group;
  if (mpi) {
    OCTET_ASSIGN_OR_RETURN(group, StartProcesses(worker_flags, ranks, address));
  } else {
    group = std::make_unique<ThreadGroup>(options, ranks,
                                          worker_flags.collective_timeout);
  }
  const absl::Status status = Supervise(*group, address, ranks);
  coordinator->Shutdown(status.ok() ? coordinator_flags.drain
                                    : absl::ZeroDuration());
  group->Join();
  return status;
}

}  // namespace octet
