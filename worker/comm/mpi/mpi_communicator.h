// One rank of a group of MPI processes (see mpi_environment.h). Collectives are
// trees and direct exchanges over MpiChannel, so that every wait can end.
#ifndef OCTET_WORKER_COMM_MPI_MPI_COMMUNICATOR_H_
#define OCTET_WORKER_COMM_MPI_MPI_COMMUNICATOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/comm/mpi/mpi_channel.h"
#include "worker/comm/mpi/mpi_environment.h"
#include "worker/comm/transport_communicator.h"

namespace octet {

class MpiCommunicator final : public TransportCommunicator {
 public:
  MpiCommunicator(MpiEnvironment& environment, CommunicatorOptions options);

  // Collective; before any other call.
  absl::Status Connect();

  int rank() const override { return environment_.rank(); }
  int size() const override { return environment_.size(); }
  absl::string_view transport() const override { return "mpi"; }
  std::string host(int rank) const override { return hosts_[rank]; }
  void Abort(const absl::Status& reason) override;
  void SetProgress(int64_t point) override { channel_.SetProgress(point); }
  std::vector<int> RanksBehind(int64_t point,
                               absl::Duration patience) override {
    return channel_.RanksBehind(point, absl::ToChronoMilliseconds(patience));
  }

 protected:
  absl::Status RunAllToAllV(const AllToAllVArgs& args, Call& call) override;
  // Direct: every rank to every other.
  absl::Status RunAllGather(const void* send, void* recv, Call& call) override;
  // Up a binomial tree to rank 0, and down again.
  absl::Status RunAllReduceI64(absl::Span<int64_t> values, ReduceOp reduce,
                               Call& call) override;
  // Down a binomial tree.
  absl::Status RunBroadcast(void* data, int root, Call& call) override;
  // Dissemination: in round i to the rank 2^i further, log2(R) rounds.
  absl::Status RunBarrier(Call& call) override;
  absl::Status RunPoll(Call& call) override {
    return Check(call, channel_.Look());
  }

 private:
  using SendPart = MpiChannel::SendPart;
  using RecvPart = MpiChannel::RecvPart;

  absl::Status Exchange(Call& call, absl::Span<const SendPart> sends,
                        absl::Span<const RecvPart> recvs);
  absl::Status Check(const Call& call, MpiChannel::Result result);

  MpiEnvironment& environment_;
  MpiChannel channel_;
  std::vector<std::string> hosts_;
};

}  // namespace octet

#endif  // OCTET_WORKER_COMM_MPI_MPI_COMMUNICATOR_H_
