#include "worker/comm/nccl/nccl_communicator.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_memory.h"
#include "kernels/cuda/cuda_status.h"
#include "worker/comm/backoff.h"
#include "worker/comm/call_signature.h"
#include "worker/comm/counters.h"
#include "worker/comm/nccl/nccl_group.h"
#include "worker/comm/transport_communicator.h"

namespace octet {
namespace {

// For the others to say where they are, when a call is late.
constexpr absl::Duration kRollCallPatience = absl::Seconds(1);

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(std::unique_ptr<Communicator> host_data, NcclOptions options)
      : host_data_(std::move(host_data)), options_(std::move(options)) {}

  absl::Status Connect();

  int rank() const override { return host_data_->rank(); }
  int size() const override { return host_data_->size(); }
  absl::string_view transport() const override { return "nccl"; }
  std::string host(int rank) const override { return host_data_->host(rank); }

  absl::Status AllToAllV(const AllToAllVArgs& args, const OpInfo& op) override;
  absl::Status AllGather(const void* send, void* recv, int64_t bytes,
                         const OpInfo& op) override {
    return OnHost(op,
                  [&] { return host_data_->AllGather(send, recv, bytes, op); });
  }
  absl::Status AllReduceI64(absl::Span<int64_t> values, ReduceOp reduce,
                            const OpInfo& op) override {
    return OnHost(op,
                  [&] { return host_data_->AllReduceI64(values, reduce, op); });
  }
  absl::Status Broadcast(void* data, int64_t bytes, int root,
                         const OpInfo& op) override {
    return OnHost(op,
                  [&] { return host_data_->Broadcast(data, bytes, root, op); });
  }
  absl::Status Barrier(const OpInfo& op) override {
    return OnHost(op, [&] { return host_data_->Barrier(op); });
  }
  absl::Status Poll(const OpInfo& op) override {
    if (!poison_.ok()) return poison_;
    return Remember(host_data_->Poll(op));
  }
  void SetProgress(int64_t point) override { host_data_->SetProgress(point); }
  std::vector<int> RanksBehind(int64_t point,
                               absl::Duration patience) override {
    return host_data_->RanksBehind(point, patience);
  }
  // Seen by the wait for the GPU too, which looks at host_data_ all the time.
  void Abort(const absl::Status& reason) override { host_data_->Abort(reason); }
  std::vector<OpCounters> counters() const override;

 private:
  // A collective over device memory in progress.
  struct DeviceCall {
    const OpInfo& op;
    absl::Duration timeout;
    absl::Time start = absl::Now();
  };

  template <typename Run>
  absl::Status OnHost(const OpInfo& op, Run run);
  absl::Status RunOnDevice(const AllToAllVArgs& args, const DeviceCall& call);
  // All ranks enter and compare what they send with what is expected.
  absl::Status Meet(const AllToAllVArgs& args, const DeviceCall& call);
  // Until `ready` (absl::StatusOr<bool>) says true, the group fails, or the
  // deadline.
  template <typename Ready>
  absl::Status Await(const DeviceCall& call, Ready ready);
  absl::StatusOr<bool> StreamIsPast();
  // Tells host_data_ when the GPU has come to the call.
  absl::Status NoteProgress();
  absl::Status DeadlineFailure(const DeviceCall& call);
  absl::Status Failure(const DeviceCall& call, absl::StatusCode code,
                       std::string reason,
                       std::vector<int> missing_ranks = {}) const;
  // An error ends NCCL's part and stays.
  absl::Status Remember(absl::Status status);

  const std::unique_ptr<Communicator> host_data_;
  const NcclOptions options_;
  NcclGroup group_;
  cuda::OwnedEvent begun_;  // the stream is where the call begins
  cuda::OwnedEvent done_;
  int64_t progress_ = -1;  // the last call that the GPU has come to
  CommCounters device_counters_;
  int64_t sequence_number_ = -1;  // of host_data_'s last collective
  absl::Status poison_;
};

template <typename Ready>
absl::Status NcclCommunicator::Await(const DeviceCall& call, Ready ready) {
  Backoff backoff(/*crowded=*/false);
  while (true) {
    absl::StatusOr<bool> answer = ready();
    if (answer.ok() && !*answer) {
      const absl::Status noted = NoteProgress();
      if (!noted.ok()) answer = noted;
    }
    if (!answer.ok()) {
      return Failure(call, answer.status().code(),
                     std::string(answer.status().message()));
    }
    if (*answer) return absl::OkStatus();
    OCTET_RETURN_IF_ERROR(host_data_->Poll(call.op));
    if (absl::Now() - call.start > call.timeout) {
      return DeadlineFailure(call);
    }
    backoff.Pause();
  }
}

// Every rank has come, and then: the process of one has stopped, or its GPU is
// busy with what was there before.
absl::Status NcclCommunicator::DeadlineFailure(const DeviceCall& call) {
  std::vector<int> behind =
      host_data_->RanksBehind(sequence_number_, kRollCallPatience);
  // Another rank may have said it first.
  OCTET_RETURN_IF_ERROR(host_data_->Poll(call.op));
  return Failure(
      call, absl::StatusCode::kDeadlineExceeded,
      absl::StrCat("every rank has come, but the GPUs did not finish within ",
                   absl::FormatDuration(call.timeout)),
      std::move(behind));
}

absl::Status NcclCommunicator::NoteProgress() {
  if (progress_ == sequence_number_) return absl::OkStatus();
  const cudaError_t error = cudaEventQuery(begun_.get());
  if (error == cudaErrorNotReady) return absl::OkStatus();
  OCTET_RETURN_IF_ERROR(
      cuda::CudaStatus(error, "cudaEventQuery of the work before"));
  host_data_->SetProgress(progress_ = sequence_number_);
  return absl::OkStatus();
}

absl::Status NcclCommunicator::Connect() {
  OpInfo op;
  op.operation = "connect GPUs";
  const DeviceCall call{op, options_.timeout};
  ncclUniqueId id = {};
  if (rank() == 0) {
    OCTET_RETURN_IF_ERROR(NcclStatus(ncclGetUniqueId(&id), "ncclGetUniqueId"));
  }
  ++sequence_number_;
  OCTET_RETURN_IF_ERROR(host_data_->Broadcast(&id, sizeof(id), 0, op));
  OCTET_ASSIGN_OR_RETURN(begun_, cuda::NewEvent());
  OCTET_ASSIGN_OR_RETURN(done_, cuda::NewEvent());
  OCTET_RETURN_IF_ERROR(group_.Connect(id, rank(), size()));
  return Await(call, [&] { return group_.Settled(); });
}

absl::Status NcclCommunicator::Remember(absl::Status status) {
  if (status.ok()) return status;
  group_.Abort();
  return poison_ = std::move(status);
}

template <typename Run>
absl::Status NcclCommunicator::OnHost(const OpInfo& op, Run run) {
  if (!poison_.ok()) return poison_;
  ++sequence_number_;
  if (op.stream != nullptr) {
    const absl::Status status =
        Failure({op, options_.timeout}, absl::StatusCode::kInvalidArgument,
                "the data is on a stream, expected host memory");
    host_data_->Abort(status);
    return Remember(status);
  }
  return Remember(run());
}

absl::Status NcclCommunicator::AllToAllV(const AllToAllVArgs& args,
                                         const OpInfo& op) {
  if (op.stream == nullptr) {
    return OnHost(op, [&] { return host_data_->AllToAllV(args, op); });
  }
  if (!poison_.ok()) return poison_;
  ++sequence_number_;
  const DeviceCall call{op, op.timeout.value_or(options_.timeout)};
  const absl::Status status = RunOnDevice(args, call);
  int64_t sent = 0;
  int64_t received = 0;
  for (int peer = 0; peer < size() && status.ok(); ++peer) {
    if (peer == rank()) continue;
    sent += args.send_bytes[peer];
    received += args.recv_bytes[peer];
  }
  device_counters_.Add(op.operation, sent, received, absl::Now() - call.start);
  return Remember(status);
}

absl::Status NcclCommunicator::RunOnDevice(const AllToAllVArgs& args,
                                           const DeviceCall& call) {
  const std::string problem = CheckAllToAllV(args, size());
  if (!problem.empty()) {
    const absl::Status status =
        Failure(call, absl::StatusCode::kInvalidArgument, problem);
    host_data_->Abort(status);
    return status;
  }
  OCTET_RETURN_IF_ERROR(Meet(args, call));
  const cudaStream_t stream = options_.native_stream(*call.op.stream);
  absl::Status status = cuda::CudaStatus(cudaEventRecord(begun_.get(), stream),
                                         "cudaEventRecord");
  if (status.ok()) status = group_.AllToAllV(args, stream);
  if (!status.ok()) {
    status = Failure(call, status.code(), std::string(status.message()));
  }
  if (status.ok()) status = Await(call, [&] { return group_.Settled(); });
  if (status.ok()) {
    const absl::Status recorded = cuda::CudaStatus(
        cudaEventRecord(done_.get(), stream), "cudaEventRecord");
    status = recorded.ok() ? Await(call, [&] { return StreamIsPast(); })
                           : Failure(call, recorded.code(),
                                     std::string(recorded.message()));
  }
  if (status.ok()) host_data_->SetProgress(progress_ = sequence_number_);
  // The others are in it already, and would wait for this rank.
  if (!status.ok()) host_data_->Abort(status);
  return status;
}

absl::Status NcclCommunicator::Meet(const AllToAllVArgs& args,
                                    const DeviceCall& call) {
  const size_t ranks = static_cast<size_t>(size());
  std::vector<int64_t> own(args.send_bytes.begin(), args.send_bytes.end());
  own.insert(own.end(), args.recv_bytes.begin(), args.recv_bytes.end());
  std::vector<int64_t> all(own.size() * ranks);  // [R][to R, then from R]
  OpInfo op = call.op;
  op.stream = nullptr;
  op.timeout = call.timeout;
  OCTET_RETURN_IF_ERROR(host_data_->AllGather(
      own.data(), all.data(), static_cast<int64_t>(own.size() * sizeof(own[0])),
      op));
  // All see the same table, so all end with the same sentence.
  for (size_t from = 0; from < ranks; ++from) {
    for (size_t to = 0; to < ranks; ++to) {
      const int64_t sent = all[from * 2 * ranks + to];
      const int64_t expected = all[to * 2 * ranks + ranks + from];
      if (sent == expected) continue;
      return Failure(call, absl::StatusCode::kInternal,
                     PartMismatch(static_cast<int>(from), sent,
                                  static_cast<int>(to), expected));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> NcclCommunicator::StreamIsPast() {
  const cudaError_t error = cudaEventQuery(done_.get());
  if (error == cudaErrorNotReady) {
    OCTET_RETURN_IF_ERROR(group_.Settled().status());
    return false;
  }
  OCTET_RETURN_IF_ERROR(
      cuda::CudaStatus(error, "cudaEventQuery of an all-to-all"));
  return true;
}

absl::Status NcclCommunicator::Failure(const DeviceCall& call,
                                       absl::StatusCode code,
                                       std::string reason,
                                       std::vector<int> missing_ranks) const {
  CollectiveFailure failure;
  failure.rank = rank();
  failure.host = host(rank());
  failure.operation = std::string(call.op.operation);
  failure.layer = call.op.layer;
  failure.step_id = call.op.step_id;
  failure.sequence_number = sequence_number_;
  failure.waited = absl::Now() - call.start;
  failure.missing_ranks = std::move(missing_ranks);
  failure.reason = std::move(reason);
  return failure.ToStatus(code);
}

std::vector<OpCounters> NcclCommunicator::counters() const {
  std::vector<OpCounters> all = device_counters_.Snapshot();
  const size_t on_device = all.size();
  for (OpCounters& counters : host_data_->counters()) {
    // The meetings of an operation whose data goes over NCCL are left out.
    bool is_meeting = false;
    for (size_t i = 0; i < on_device; ++i) {
      is_meeting |= all[i].operation == counters.operation;
    }
    if (!is_meeting) all.push_back(std::move(counters));
  }
  return all;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> NewNcclCommunicator(
    std::unique_ptr<Communicator> host_data, NcclOptions options) {
  Communicator* const group = host_data.get();
  auto communicator = std::make_unique<NcclCommunicator>(std::move(host_data),
                                                         std::move(options));
  const absl::Status status = communicator->Connect();
  if (!status.ok()) {
    group->Abort(status);
    return status;
  }
  return communicator;
}

}  // namespace octet
