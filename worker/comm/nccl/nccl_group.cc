#include "worker/comm/nccl/nccl_group.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_status.h"
#include "worker/comm/backoff.h"

namespace octet {
namespace {

// For peers that leave too; those that have died must not hold this rank.
constexpr std::chrono::seconds kGoodbye{1};

// Calls on a communicator that does not block may still be under way.
absl::Status Started(ncclResult_t result, absl::string_view call) {
  return result == ncclInProgress ? absl::OkStatus() : NcclStatus(result, call);
}

}  // namespace

absl::Status NcclStatus(ncclResult_t result, absl::string_view call) {
  if (result == ncclSuccess) return absl::OkStatus();
  std::string sentence = absl::StrCat(call, ": ", ncclGetErrorString(result));
  const absl::string_view detail = ncclGetLastError(nullptr);
  if (!detail.empty()) absl::StrAppend(&sentence, " (", detail, ")");
  return result == ncclRemoteError || result == ncclSystemError
             ? absl::UnavailableError(sentence)
             : absl::InternalError(sentence);
}

NcclGroup::~NcclGroup() {
  if (comm_ == nullptr) return;
  absl::Status status = Started(ncclCommFinalize(comm_), "ncclCommFinalize");
  const auto end = std::chrono::steady_clock::now() + kGoodbye;
  Backoff backoff(/*crowded=*/true);
  bool settled = false;
  while (status.ok() && !settled && std::chrono::steady_clock::now() < end) {
    const absl::StatusOr<bool> answer = Settled();
    status = answer.status();
    settled = answer.ok() && *answer;
    if (!settled) backoff.Pause();
  }
  if (settled) {
    ncclCommDestroy(comm_);
  } else {
    ncclCommAbort(comm_);
  }
}

absl::Status NcclGroup::Connect(const ncclUniqueId& id, int rank, int size) {
  rank_ = rank;
  size_ = size;
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  return Started(ncclCommInitRankConfig(&comm_, size, id, rank, &config),
                 "ncclCommInitRankConfig");
}

absl::StatusOr<bool> NcclGroup::Settled() {
  ncclResult_t result = ncclSuccess;
  OCTET_RETURN_IF_ERROR(NcclStatus(ncclCommGetAsyncError(comm_, &result),
                                   "ncclCommGetAsyncError"));
  if (result == ncclInProgress) return false;
  OCTET_RETURN_IF_ERROR(NcclStatus(result, "NCCL"));
  return true;
}

absl::Status NcclGroup::AllToAllV(const Communicator::AllToAllVArgs& args,
                                  cudaStream_t stream) {
  const char* send = static_cast<const char*>(args.send);
  char* recv = static_cast<char*>(args.recv);
  if (args.send_bytes[rank_] > 0) {
    OCTET_RETURN_IF_ERROR(cuda::CudaStatus(
        cudaMemcpyAsync(recv + args.recv_offsets[rank_],
                        send + args.send_offsets[rank_],
                        static_cast<size_t>(args.send_bytes[rank_]),
                        cudaMemcpyDeviceToDevice, stream),
        "cudaMemcpyAsync of the own part"));
  }
  OCTET_RETURN_IF_ERROR(NcclStatus(ncclGroupStart(), "ncclGroupStart"));
  absl::Status status;
  for (int step = 1; step < size_ && status.ok(); ++step) {
    const int to = (rank_ + step) % size_;
    const int from = (rank_ + size_ - step) % size_;
    if (args.send_bytes[to] > 0) {
      status = Started(ncclSend(send + args.send_offsets[to],
                                static_cast<size_t>(args.send_bytes[to]),
                                ncclInt8, to, comm_, stream),
                       "ncclSend");
    }
    if (status.ok() && args.recv_bytes[from] > 0) {
      status = Started(ncclRecv(recv + args.recv_offsets[from],
                                static_cast<size_t>(args.recv_bytes[from]),
                                ncclInt8, from, comm_, stream),
                       "ncclRecv");
    }
  }
  // A group that was opened is closed, whatever was in it.
  const absl::Status end = Started(ncclGroupEnd(), "ncclGroupEnd");
  return status.ok() ? end : status;
}

void NcclGroup::Abort() {
  if (comm_ != nullptr) ncclCommAbort(std::exchange(comm_, nullptr));
}

}  // namespace octet
