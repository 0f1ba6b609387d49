// octet serve: coordinator and workers on this machine, ranks as threads of
// this process or, with --mpi, as processes.
#include <cstdio>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/client.h"
#include "launch/command.h"
#include "launch/flags.h"
#include "launch/local_service.h"
#include "launch/shutdown_signal.h"

namespace octet {
namespace {

// Runs until a signal comes or the group ends; says when the service is ready.
absl::Status Supervise(LocalService& service, int ranks) {
  Client client(service.address());
  bool ready = false;
  std::optional<absl::Status> ended;
  const bool signalled = WaitForShutdownSignal([&] {
    ended = service.Ended();
    if (!ready && !ended.has_value()) {
      const absl::StatusOr<v1::GetInfoResponse> info = client.GetInfo();
      ready = info.ok() && info->state() == v1::GROUP_STATE_READY;
      if (ready) {
        std::printf("octet is ready on %s (%d workers)\n",
                    service.address().c_str(), ranks);
        std::fflush(stdout);
      }
    }
    return ended.has_value();
  });
  if (signalled) return absl::OkStatus();
  if (ended->ok())
    return absl::UnavailableError(
        "octet serve: the workers ended by themselves");
  return absl::Status(ended->code(),
                      absl::StrCat("octet serve: ", ended->message()));
}

}  // namespace

absl::Status RunServe(const Args& args) {
  LocalServiceFlags service_flags;
  Flags flags(
      "octet serve",
      "Serves a model on this machine: a coordinator and worker ranks.");
  service_flags.AddTo(flags);
  OCTET_ASSIGN_OR_RETURN(const bool go_on, flags.Parse(args));
  if (!go_on) return absl::OkStatus();
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<LocalService> service,
                         LocalService::Start("octet serve", service_flags));
  const absl::Status status = Supervise(*service, service_flags.workers);
  service->Stop(status.ok() ? service_flags.coordinator.drain
                            : absl::ZeroDuration());
  return status;
}

}  // namespace octet
