// octet worker: becomes octet-worker, the program that links MPI (this one does
// not, so that a coordinator never does).
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "launch/child_process.h"
#include "launch/command.h"
#include "launch/shutdown_signal.h"

namespace octet {

absl::Status RunWorkerCommand(const Args& args) {
  std::vector<std::string> strings = {
      absl::StrCat(ProgramDirectory(), "/octet-worker")};
  strings.insert(strings.end(), args.begin(), args.end());
  std::vector<char*> argv;
  for (std::string& s : strings) argv.push_back(s.data());
  argv.push_back(nullptr);
  UnblockShutdownSignals();
  execv(argv[0], argv.data());
  return absl::NotFoundError(absl::StrCat(
      "octet worker: cannot start ", strings[0], ": ", std::strerror(errno),
      "; it is built where MPI is installed"));
}

}  // namespace octet
