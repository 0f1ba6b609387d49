#include "tests/worker/comm/failure_rank.h"

#include <signal.h>

#include <fstream>
#include <iostream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"

namespace octet::test {
namespace {

MpiEnvironment* environment_for_signal = nullptr;

void OnTerminate(int /*signal*/) {
  environment_for_signal->RequestAbort("got SIGTERM");
}

void Report(const std::string& directory, int rank, const absl::Status& status,
            bool poisoned) {
  const auto failure = FailureOf(status);
  std::ofstream(absl::StrCat(directory, "/result.", rank))
      << absl::StatusCodeToString(status.code()) << "|"
      << (failure ? absl::StrJoin(failure->missing_ranks, ",") : "none") << "|"
      << (poisoned ? "poisoned" : "usable") << "|" << status.message() << "\n";
}

}  // namespace

absl::Status FailingDispatch(Communicator& comm, absl::Duration timeout,
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

absl::Status DispatchUnless(Communicator& comm, absl::Duration timeout,
                            const std::function<void()>& rank_1_does,
                            int64_t part_bytes) {
  if (comm.rank() == 1) rank_1_does();
  return FailingDispatch(comm, timeout, part_bytes, part_bytes);
}

int FailureMain(int argc, char** argv, const NewCommunicator& new_communicator,
                const std::map<std::string, Scenario>& scenarios) {
  auto environment = MpiEnvironment::Init(&argc, &argv);
  if (!environment.ok() || argc != 3) {
    std::cerr << "usage: PROGRAM SCENARIO OUTPUT_DIR under mpirun\n";
    return 2;
  }
  environment_for_signal = environment->get();
  signal(SIGTERM, OnTerminate);
  auto comm = new_communicator(**environment);
  if (!comm.ok()) {
    std::cerr << comm.status() << "\n";
    return 2;
  }
  absl::Status status = (*comm)->Barrier({.operation = "start"});
  // A peer may go wrong before this rank has left the barrier.
  if (status.ok()) status = scenarios.at(argv[1])(**comm);
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

}  // namespace octet::test
