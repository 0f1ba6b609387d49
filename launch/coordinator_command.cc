// octet coordinator: only the coordinator. It outlives worker groups: when one
// ends the next may connect.
#include <cstdio>
#include <memory>
#include <string>

#include "base/status_macros.h"
#include "coordinator/coordinator.h"
#include "launch/command.h"
#include "launch/coordinator_flags.h"
#include "launch/flags.h"
#include "launch/shutdown_signal.h"

namespace octet {

absl::Status RunCoordinator(const Args& args) {
  std::string model;
  CoordinatorFlags options;
  Flags flags("octet coordinator",
              "Runs only the coordinator; worker groups dial it.");
  flags.Add("model", &model,
            "directory of the checkpoint that workers will load (for its "
            "tokenizer and vocabulary)");
  options.AddTo(flags);
  OCTET_ASSIGN_OR_RETURN(const bool go_on, flags.Parse(args));
  if (!go_on) return absl::OkStatus();
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<Coordinator> coordinator,
                         options.Start("octet coordinator", model));
  std::printf("octet coordinator listening on %s\n",
              options.Address(*coordinator).c_str());
  std::fflush(stdout);
  WaitForShutdownSignal([] { return false; });
  coordinator->Shutdown(options.drain);
  return absl::OkStatus();
}

}  // namespace octet
