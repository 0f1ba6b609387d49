// One rank of a job in which something goes wrong; mpi_failure_test runs it
// under mpirun: mpi_failure_rank SCENARIO OUTPUT_DIR. Each rank that lives to
// see its error writes it to OUTPUT_DIR/result.RANK:
//   code|missing ranks|poisoned or not|message
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "worker/comm/mpi/mpi_environment.h"

namespace octet {
namespace {

MpiEnvironment* environment_for_signal = nullptr;

void OnTerminate(int /*signal*/) {
  environment_for_signal->RequestAbort("got SIGTERM");
}

absl::Status Dispatch(Communicator& comm, absl::Duration timeout,
                      int64_t part_bytes, int64_t last_part_bytes) {
  const int size = comm.size();
  std::vector<int64_t> bytes(size, part_bytes);
  std::vector<int64_t> recv_bytes(size, part_bytes);
  std::vector<int64_t> offsets(size);
  for (int peer = 0; peer < size; ++peer) offsets[peer] = peer * part_bytes;
  bytes[size - 1] = last_part_bytes;
  std::vector<char> send(size * part_bytes + last_part_bytes);
  std::vector<char> recv(size * part_bytes);
  return comm.AllToAllV(
      {send.data(), offsets, bytes, recv.data(), offsets, recv_bytes},
      {.operation = "dispatch", .layer = 3, .step_id = 17, .timeout = timeout});
}

// What a rank does; rank 1 is the one that fails.
using Scenario = std::function<absl::Status(Communicator&)>;

absl::Status DispatchUnless(Communicator& comm, absl::Duration timeout,
                            const std::function<void()>& rank_1_does,
                            int64_t part_bytes) {
  if (comm.rank() == 1) rank_1_does();
  return Dispatch(comm, timeout, part_bytes, part_bytes);
}

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
         return Dispatch(comm, absl::Seconds(60), 64,
                         comm.rank() == 1 ? 68 : 64);
       }},
      {"operations", DifferentOperations},
      {"aborted", AbortedByRank1},
      {"bad_argument", BadArgument},
  };
  return scenarios;
}

void Report(const std::string& directory, int rank, const absl::Status& status,
            bool poisoned) {
  const auto failure = FailureOf(status);
  std::ofstream(absl::StrCat(directory, "/result.", rank))
      << absl::StatusCodeToString(status.code()) << "|"
      << (failure ? absl::StrJoin(failure->missing_ranks, ",") : "none") << "|"
      << (poisoned ? "poisoned" : "usable") << "|" << status.message() << "\n";
}

int Main(int argc, char** argv) {
  auto environment = MpiEnvironment::Init(&argc, &argv);
  if (!environment.ok() || argc != 3) {
    std::cerr << "usage: mpi_failure_rank SCENARIO OUTPUT_DIR under mpirun\n";
    return 2;
  }
  environment_for_signal = environment->get();
  signal(SIGTERM, OnTerminate);
  auto comm = NewMpiCommunicator(**environment);
  if (!comm.ok()) {
    std::cerr << comm.status() << "\n";
    return 2;
  }
  absl::Status status = (*comm)->Barrier({.operation = "start"});
  // A peer may go wrong before this rank has left the barrier.
  if (status.ok()) status = Scenarios().at(argv[1])(**comm);
  // A rank that was done before the mistake was seen learns of it next time.
  if (status.ok()) status = (*comm)->Barrier({.operation = "next"});
  const absl::Status again = (*comm)->Barrier({.operation = "again"});
  Report(argv[2], (*environment)->rank(), status, again == status);
  const bool cut_off = absl::string_view(argv[1]) == "cut_off";
  (*environment)
      ->AwaitTermination(cut_off ? absl::Seconds(20)
                                 : absl::Milliseconds(1500));
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace octet

int main(int argc, char** argv) { return octet::Main(argc, argv); }
