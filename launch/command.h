// The subcommands of the `octet` program. Each declares its flags, runs, and
// returns a status whose message is the one sentence shown to the user.
#ifndef OCTET_LAUNCH_COMMAND_H_
#define OCTET_LAUNCH_COMMAND_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace octet {

using Args = std::vector<std::string>;

struct Command {
  const char* name;
  const char* summary;
  absl::Status (*run)(const Args& args);
};

absl::Status RunServe(const Args& args);
absl::Status RunCoordinator(const Args& args);
absl::Status RunWorkerCommand(const Args& args);
absl::Status RunGenerate(const Args& args);
absl::Status RunChat(const Args& args);
absl::Status RunScore(const Args& args);
absl::Status RunInfo(const Args& args);
absl::Status RunTrain(const Args& args);
absl::Status RunMerge(const Args& args);
absl::Status RunInit(const Args& args);
absl::Status RunBench(const Args& args);

// Runs the command that args[0] names, with the rest, and returns the program's
// exit code: 0, 1 for a failure, 2 for wrong usage. Prints help and errors.
int RunProgram(absl::Span<const Command> commands, const Args& args);

}  // namespace octet

#endif  // OCTET_LAUNCH_COMMAND_H_
