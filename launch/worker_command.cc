// octet worker: becomes octet-worker, the program that links MPI (this one does
// not, so that a coordinator never does).
#include "launch/child_process.h"
#include "launch/command.h"

namespace octet {

absl::Status RunWorkerCommand(const Args& args) {
  return BecomeSibling("octet-worker", args,
                       "octet worker: ", "it is built where MPI is installed");
}

}  // namespace octet
