// One rank over NCCL on an emulated GPU in which something goes wrong;
// nccl_failure_test runs it.
#include <cuda_runtime.h>
#include <signal.h>

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "tests/worker/comm/failure_rank.h"
#include "tests/worker/comm/nccl/device_data.h"

namespace octet {
namespace {

using test::DispatchUnless;
using test::FailingDispatch;
using test::OnDevice;
using test::Scenario;

// Says at the meeting before a dispatch that 64 bytes go to everybody, whatever
// is true.
class Liar final : public Communicator {
 public:
  explicit Liar(std::unique_ptr<Communicator> mpi) : mpi_(std::move(mpi)) {}

  int rank() const override { return mpi_->rank(); }
  int size() const override { return mpi_->size(); }
  absl::string_view transport() const override { return mpi_->transport(); }
  std::string host(int rank) const override { return mpi_->host(rank); }
  absl::Status AllToAllV(const AllToAllVArgs& args, const OpInfo& op) override {
    return mpi_->AllToAllV(args, op);
  }
  absl::Status AllGather(const void* /*send*/, void* recv, int64_t bytes,
                         const OpInfo& op) override {
    const std::vector<int64_t> lie(bytes / sizeof(int64_t), 64);
    return mpi_->AllGather(lie.data(), recv, bytes, op);
  }
  absl::Status AllReduceI64(absl::Span<int64_t> values, ReduceOp reduce,
                            const OpInfo& op) override {
    return mpi_->AllReduceI64(values, reduce, op);
  }
  absl::Status Broadcast(void* data, int64_t bytes, int root,
                         const OpInfo& op) override {
    return mpi_->Broadcast(data, bytes, root, op);
  }
  absl::Status Barrier(const OpInfo& op) override { return mpi_->Barrier(op); }
  absl::Status Poll(const OpInfo& op) override { return mpi_->Poll(op); }
  void SetProgress(int64_t point) override { mpi_->SetProgress(point); }
  std::vector<int> RanksBehind(int64_t point,
                               absl::Duration patience) override {
    return mpi_->RanksBehind(point, patience);
  }
  void Abort(const absl::Status& reason) override { mpi_->Abort(reason); }
  std::vector<OpCounters> counters() const override { return {}; }

 private:
  std::unique_ptr<Communicator> mpi_;
};

// Rank 1's GPU does `work` before it comes to the dispatch that its host has
// entered in time, and of which it sends `bytes` to everybody.
absl::Status DispatchBehind(Communicator& comm, absl::Duration timeout,
                            cudaHostFn_t work, int64_t bytes = 64) {
  if (comm.rank() != 1) return FailingDispatch(comm, timeout, 64, 64);
  cudaLaunchHostFunc(static_cast<OnDevice&>(comm).stream().get(), work,
                     nullptr);
  return FailingDispatch(comm, timeout, 64, bytes);
}

absl::Status NegativeSize(Communicator& comm) {
  const std::vector<int64_t> send_bytes(comm.size(), 64),
      offsets(comm.size(), 0);
  std::vector<int64_t> recv_bytes = send_bytes;
  if (comm.rank() == 1) recv_bytes.back() = -1;
  std::vector<char> send(64), recv(64);
  return comm.AllToAllV(
      {send.data(), offsets, send_bytes, recv.data(), offsets, recv_bytes},
      {.operation = "dispatch", .layer = 3, .step_id = 17});
}

absl::Status AbortedByRank1(Communicator& comm) {
  if (comm.rank() == 1) {
    comm.Abort(absl::InternalError("expert 7 is on fire"));
  }
  return FailingDispatch(comm, absl::Seconds(60), 64, 64);
}

absl::Status GatherOnStream(Communicator& comm) {
  int64_t value = 0;
  std::vector<int64_t> all(comm.size());
  OpInfo op;
  op.operation = "gather";
  if (comm.rank() == 1) op.stream = &static_cast<OnDevice&>(comm).stream();
  return comm.AllGather(&value, all.data(), sizeof(value), op);
}

Scenario Dispatch(absl::Duration timeout, std::function<void()> rank_1_does,
                  int64_t part_bytes) {
  return [=](Communicator& comm) {
    return DispatchUnless(comm, timeout, rank_1_does, part_bytes);
  };
}

const std::map<std::string, Scenario>& Scenarios() {
  const auto late = [] { absl::SleepFor(absl::Milliseconds(600)); };
  const Scenario unequal = [](Communicator& comm) {
    return FailingDispatch(comm, absl::Seconds(60), 64,
                           comm.rank() == 1 ? 68 : 64);
  };
  static const auto& scenarios = *new std::map<std::string, Scenario>{
      {"late", Dispatch(absl::Milliseconds(300), late, 64)},
      {"late_large", Dispatch(absl::Milliseconds(300), late, 1 << 20)},
      {"killed", Dispatch(
                     absl::Seconds(60), [] { raise(SIGKILL); }, 64)},
      {"stopped", Dispatch(
                      absl::Seconds(1), [] { raise(SIGSTOP); }, 64)},
      {"sizes", unequal},
      {"lie", unequal},
      {"lie_late",
       [](Communicator& comm) {
         return DispatchBehind(
             comm, absl::Seconds(10),
             [](void*) { absl::SleepFor(absl::Milliseconds(500)); }, 68);
       }},
      {"gpu_late",
       [](Communicator& comm) {
         return DispatchBehind(comm, absl::Milliseconds(500),
                               [](void*) { absl::SleepFor(absl::Seconds(2)); });
       }},
      {"gpu_stopped",
       [](Communicator& comm) {
         return DispatchBehind(comm, absl::Seconds(1),
                               [](void*) { raise(SIGSTOP); });
       }},
      {"gpu_killed",
       [](Communicator& comm) {
         return DispatchBehind(comm, absl::Seconds(60),
                               [](void*) { raise(SIGKILL); });
       }},
      {"aborted", AbortedByRank1},
      {"bad_argument", NegativeSize},
      {"wrong_memory", GatherOnStream},
  };
  return scenarios;
}

absl::StatusOr<std::unique_ptr<Communicator>> NewRank(
    MpiEnvironment& environment, bool lies) {
  OCTET_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> host_data,
                         NewMpiCommunicator(environment));
  if (lies) host_data = std::make_unique<Liar>(std::move(host_data));
  OCTET_ASSIGN_OR_RETURN(auto nccl,
                         test::NewNccl(std::move(host_data), absl::Minutes(1)));
  return std::make_unique<OnDevice>(std::move(nccl));
}

}  // namespace
}  // namespace octet

int main(int argc, char** argv) {
  const bool lies = argc > 1 && std::string(argv[1]).starts_with("lie");
  return octet::test::FailureMain(
      argc, argv,
      [lies](octet::MpiEnvironment& environment) {
        return octet::NewRank(environment, lies);
      },
      octet::Scenarios());
}
