#include "tests/worker/moe/nccl/stream_order_communicator.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_stream.h"
#include "worker/comm/nccl/nccl_group.h"

namespace octet::test {
namespace {

class StreamOrderCommunicator final : public Communicator {
 public:
  explicit StreamOrderCommunicator(std::unique_ptr<Communicator> host_data)
      : host_data_(std::move(host_data)) {}

  absl::Status Connect() {
    ncclUniqueId id = {};
    if (rank() == 0) {
      OCTET_RETURN_IF_ERROR(
          NcclStatus(ncclGetUniqueId(&id), "ncclGetUniqueId"));
    }
    OCTET_RETURN_IF_ERROR(
        host_data_->Broadcast(&id, sizeof(id), 0, {.operation = "connect"}));
    OCTET_RETURN_IF_ERROR(group_.Connect(id, rank(), size()));
    return Settle();
  }

  int rank() const override { return host_data_->rank(); }
  int size() const override { return host_data_->size(); }
  absl::string_view transport() const override { return "stream order"; }
  std::string host(int rank) const override { return host_data_->host(rank); }

  absl::Status AllToAllV(const AllToAllVArgs& args, const OpInfo& op) override {
    if (op.stream == nullptr) return host_data_->AllToAllV(args, op);
    OCTET_RETURN_IF_ERROR(group_.AllToAllV(
        args, static_cast<const cuda::CudaStream&>(*op.stream).get()));
    return Settle();
  }
  absl::Status AllGather(const void* send, void* recv, int64_t bytes,
                         const OpInfo& op) override {
    return host_data_->AllGather(send, recv, bytes, op);
  }
  absl::Status AllReduceI64(absl::Span<int64_t> values, ReduceOp reduce,
                            const OpInfo& op) override {
    return host_data_->AllReduceI64(values, reduce, op);
  }
  absl::Status Broadcast(void* data, int64_t bytes, int root,
                         const OpInfo& op) override {
    return host_data_->Broadcast(data, bytes, root, op);
  }
  absl::Status Barrier(const OpInfo& op) override {
    return host_data_->Barrier(op);
  }
  absl::Status Poll(const OpInfo& op) override { return host_data_->Poll(op); }
  void SetProgress(int64_t point) override { host_data_->SetProgress(point); }
  std::vector<int> RanksBehind(int64_t point,
                               absl::Duration patience) override {
    return host_data_->RanksBehind(point, patience);
  }
  void Abort(const absl::Status& reason) override { host_data_->Abort(reason); }
  std::vector<OpCounters> counters() const override { return {}; }

 private:
  // Until what was called is on its stream.
  absl::Status Settle() {
    while (true) {
      OCTET_ASSIGN_OR_RETURN(const bool settled, group_.Settled());
      if (settled) return absl::OkStatus();
      OCTET_RETURN_IF_ERROR(host_data_->Poll({.operation = "settle"}));
      absl::SleepFor(absl::Microseconds(20));
    }
  }

  const std::unique_ptr<Communicator> host_data_;
  NcclGroup group_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> NewStreamOrderCommunicator(
    std::unique_ptr<Communicator> host_data) {
  auto communicator =
      std::make_unique<StreamOrderCommunicator>(std::move(host_data));
  OCTET_RETURN_IF_ERROR(communicator->Connect());
  return communicator;
}

}  // namespace octet::test
