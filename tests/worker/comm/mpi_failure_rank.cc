// One rank over MPI in which something goes wrong; mpi_failure_test runs it.
#include <signal.h>

#include <cstdlib>
#include <iostream>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/worker/comm/failure_rank.h"

namespace octet {
namespace {

using test::DispatchUnless;
using test::FailingDispatch;
using test::Scenario;

// Takes this host off the network of tests/integration/netns.
void CutOwnCable() {
  const std::string command = absl::StrCat(
      "ip -n ", std::getenv("OCTET_HOSTS_SWITCH"), " link set port1 down");
  if (std::system(command.c_str()) != 0) std::cerr << command << " failed\n";
}

absl::Status DifferentOperations(Communicator& comm) {
  int64_t value = 0;
  return comm.rank() == 1
             ? comm.AllReduceI64(absl::MakeSpan(&value, 1), ReduceOp::kSum,
                                 {.operation = "count"})
             : comm.Broadcast(&value, 8, 0, {.operation = "plan"});
}

absl::Status AbortedByRank1(Communicator& comm) {
  if (comm.rank() == 1) {
    absl::SleepFor(absl::Milliseconds(100));
    comm.Abort(absl::InternalError("expert 7 is on fire"));
    return comm.Barrier({.operation = "after"});
  }
  char byte = 0;
  return comm.Broadcast(
      &byte, 1, 1,
      {.operation = "next plan", .timeout = absl::InfiniteDuration()});
}

absl::Status BadArgument(Communicator& comm) {
  char byte = 0;
  return comm.Broadcast(&byte, 1, comm.rank() == 1 ? 99 : 1,
                        {.operation = "plan"});
}

const std::map<std::string, Scenario>& Scenarios() {
  static const auto& scenarios = *new std::map<std::string, Scenario>{
      {"late",
       [](Communicator& comm) {
         return DispatchUnless(
             comm, absl::Milliseconds(300),
             [] { absl::SleepFor(absl::Milliseconds(600)); }, 64);
       }},
      {"late_large",
       [](Communicator& comm) {
         return DispatchUnless(
             comm, absl::Milliseconds(300),
             [] { absl::SleepFor(absl::Milliseconds(600)); }, 1 << 20);
       }},
      {"killed",
       [](Communicator& comm) {
         return DispatchUnless(
             comm, absl::Seconds(60), [] { raise(SIGKILL); }, 64);
       }},
      {"killed_large",
       [](Communicator& comm) {
         return DispatchUnless(
             comm, absl::Seconds(60), [] { raise(SIGKILL); }, 1 << 20);
       }},
      {"stopped",
       [](Communicator& comm) {
         return DispatchUnless(
             comm, absl::Seconds(1), [] { raise(SIGSTOP); }, 64);
       }},
      {"cut_off",
       [](Communicator& comm) {
         return DispatchUnless(comm, absl::Seconds(1), CutOwnCable, 64);
       }},
      {"sizes",
       [](Communicator& comm) {
         return FailingDispatch(comm, absl::Seconds(60), 64,
                                comm.rank() == 1 ? 68 : 64);
       }},
      {"operations", DifferentOperations},
      {"aborted", AbortedByRank1},
      {"bad_argument", BadArgument},
  };
  return scenarios;
}

}  // namespace
}  // namespace octet

int main(int argc, char** argv) {
  return octet::test::FailureMain(
      argc, argv,
      [](octet::MpiEnvironment& environment) {
        return octet::NewMpiCommunicator(environment);
      },
      octet::Scenarios());
}
