// One child process, for example mpirun. It gets a process group of its own, so
// that signals reach it and what it started, and a terminal's Ctrl-C reaches
// only us. Move-only; destruction kills what still runs. One thread at a time.
#ifndef OCTET_LAUNCH_CHILD_PROCESS_H_
#define OCTET_LAUNCH_CHILD_PROCESS_H_

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace octet {

class ChildProcess {
 public:
  // argv[0] is looked up in PATH. `environment` is added to this process's.
  // NOT_FOUND when it cannot be started.
  static absl::StatusOr<ChildProcess> Start(
      const std::vector<std::string>& argv,
      const std::map<std::string, std::string>& environment);
  ~ChildProcess();
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&&) = delete;

  // Exit code once it has ended (128 + signal for a killed one, as shells say);
  // nullopt while it runs.
  std::optional<int> ExitCode();
  // SIGTERM to the group, SIGKILL to what is left after `grace`; returns when
  // it has ended.
  void Stop(absl::Duration grace);

 private:
  explicit ChildProcess(pid_t pid) : pid_(pid) {}

  pid_t pid_ = -1;  // -1: moved from
  std::optional<int> exit_code_;
};

// The folder of the running program, where its siblings are.
std::string ProgramDirectory();

// Replaces this process by the program `name` of that folder. Returns only when
// that cannot be: NOT_FOUND, a sentence that `lead` begins ("octet worker: ")
// and `hint` ends ("it is built where MPI is installed").
absl::Status BecomeSibling(const std::string& name,
                           const std::vector<std::string>& args,
                           absl::string_view lead, absl::string_view hint);

}  // namespace octet

#endif  // OCTET_LAUNCH_CHILD_PROCESS_H_
