#include "launch/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "launch/shutdown_signal.h"

namespace octet {
namespace {

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& s : strings) pointers.push_back(s.data());
  pointers.push_back(nullptr);
  return pointers;
}

std::vector<std::string> MergedEnvironment(
    const std::map<std::string, std::string>& additions) {
  std::vector<std::string> merged;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string name(*entry, std::strcspn(*entry, "="));
    if (additions.count(name) == 0) merged.emplace_back(*entry);
  }
  for (const auto& [name, value] : additions)
    merged.push_back(absl::StrCat(name, "=", value));
  return merged;
}

}  // namespace

absl::StatusOr<ChildProcess> ChildProcess::Start(
    const std::vector<std::string>& argv,
    const std::map<std::string, std::string>& environment) {
  std::vector<std::string> arguments = argv;
  std::vector<std::string> variables = MergedEnvironment(environment);
  std::vector<char*> argument_pointers = Pointers(arguments);
  std::vector<char*> variable_pointers = Pointers(variables);
  int error_pipe[2];  // carries errno of a failed exec; closed by a successful
                      // one
  if (pipe2(error_pipe, O_CLOEXEC) != 0)
    return absl::InternalError(absl::StrCat("pipe: ", std::strerror(errno)));
  const pid_t pid = fork();
  if (pid < 0) {
    close(error_pipe[0]);
    close(error_pipe[1]);
    return absl::InternalError(absl::StrCat("fork: ", std::strerror(errno)));
  }
  if (pid == 0) {
    setpgid(0, 0);
    UnblockShutdownSignals();
    execvpe(argument_pointers[0], argument_pointers.data(),
            variable_pointers.data());
    const int error = errno;
    [[maybe_unused]] ssize_t written =
        write(error_pipe[1], &error, sizeof(error));
    _exit(127);
  }
  close(error_pipe[1]);
  int error = 0;
  const ssize_t got = read(error_pipe[0], &error, sizeof(error));
  close(error_pipe[0]);
  if (got == sizeof(error)) {
    waitpid(pid, nullptr, 0);
    return absl::NotFoundError(
        absl::StrCat("cannot start ", argv[0], ": ", std::strerror(error)));
  }
  return ChildProcess(pid);
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), exit_code_(other.exit_code_) {}

ChildProcess::~ChildProcess() {
  if (pid_ > 0) Stop(absl::ZeroDuration());
}

std::optional<int> ChildProcess::ExitCode() {
  if (exit_code_.has_value()) return exit_code_;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) == pid_) {
    exit_code_ =
        WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  return exit_code_;
}

void ChildProcess::Stop(absl::Duration grace) {
  const absl::Time deadline = absl::Now() + grace;
  if (!ExitCode().has_value()) kill(-pid_, SIGTERM);
  while (!ExitCode().has_value() && absl::Now() < deadline)
    absl::SleepFor(absl::Milliseconds(10));
  kill(-pid_,
       SIGKILL);  // whoever is left of the group; nobody is the usual case
  while (!ExitCode().has_value()) absl::SleepFor(absl::Milliseconds(1));
}

std::string ProgramDirectory() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path().string();
}

absl::Status BecomeSibling(const std::string& name,
                           const std::vector<std::string>& args,
                           absl::string_view lead, absl::string_view hint) {
  std::vector<std::string> strings = {
      absl::StrCat(ProgramDirectory(), "/", name)};
  strings.insert(strings.end(), args.begin(), args.end());
  std::vector<char*> argv = Pointers(strings);
  UnblockShutdownSignals();
  execv(argv[0], argv.data());
  return absl::NotFoundError(absl::StrCat(lead, "cannot start ", strings[0],
                                          ": ", std::strerror(errno), "; ",
                                          hint));
}

}  // namespace octet
