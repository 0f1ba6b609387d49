#include "launch/local_service.h"

#include <unistd.h>

#include <atomic>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "launch/child_process.h"
#include "worker/model/config.h"
#include "worker/moe/placement.h"

namespace octet {
namespace {

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
        absl::StrCat("the worker processes ended with exit code ", *code,
                     "; their messages are above"));
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

}  // namespace

void LocalServiceFlags::AddTo(Flags& flags) {
  flags.Add("workers", &workers, "worker ranks", {.min = 1, .max = 1024});
  flags.Add("mpi", &mpi,
            "ranks are processes under mpirun; otherwise threads of this one");
  worker.AddTo(flags);
  coordinator.AddTo(flags);
}

absl::StatusOr<std::unique_ptr<LocalService>> LocalService::Start(
    const std::string& program, const LocalServiceFlags& flags) {
  // What is wrong is said before anything starts.
  OCTET_RETURN_IF_ERROR(flags.worker.ToOptions(program, "").status());
  if (flags.worker.device != "cpu" && !flags.mpi) {
    return absl::InvalidArgumentError(absl::StrCat(
        program, ": --device is '", flags.worker.device,
        "', expected cpu without --mpi, since each GPU has its own process"));
  }
  OCTET_ASSIGN_OR_RETURN(const ModelConfig config,
                         LoadModelConfig(flags.worker.model));
  const absl::StatusOr<Placement> placement = Placement::Parse(
      flags.worker.placement, config.num_experts, flags.workers);
  if (!placement.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(program, ": --placement: ", placement.status().message()));
  }
  std::unique_ptr<LocalService> service(new LocalService());
  OCTET_ASSIGN_OR_RETURN(service->coordinator_,
                         flags.coordinator.Start(program, flags.worker.model));
  service->address_ = flags.coordinator.Address(*service->coordinator_);
  OCTET_ASSIGN_OR_RETURN(const WorkerOptions options,
                         flags.worker.ToOptions(program, service->address_));
  if (flags.mpi) {
    OCTET_ASSIGN_OR_RETURN(
        service->group_,
        StartProcesses(flags.worker, flags.workers, service->address_));
  } else {
    service->group_ = std::make_unique<ThreadGroup>(
        options, flags.workers, flags.worker.collective_timeout);
  }
  return service;
}

LocalService::~LocalService() { Stop(absl::ZeroDuration()); }

void LocalService::Stop(absl::Duration drain) {
  if (std::exchange(stopped_, true)) return;
  if (coordinator_ != nullptr) coordinator_->Shutdown(drain);
  if (group_ != nullptr) group_->Join();
}

}  // namespace octet
