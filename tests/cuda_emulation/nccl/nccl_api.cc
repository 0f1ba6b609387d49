// NCCL's groups, send and receive, and collectives.

#include "tests/cuda_emulation/engine/injection.h"
#include "tests/cuda_emulation/nccl/communicator.h"
#include "tests/cuda_emulation/nccl/communicator_api.h"
#include "tests/cuda_emulation/nccl/fault.h"
#include "tests/cuda_emulation/nccl/reduce.h"
#include "tests/cuda_emulation/runtime/memory.h"
#include "tests/cuda_emulation/runtime/stream.h"

namespace cuda_emu {
namespace {

struct PendingPointToPoint {
  ncclComm_t comm;
  cudaStream_t stream;
  std::vector<PointToPoint> calls;
};

// Of the calling thread, as in NCCL.
thread_local int t_group_depth = 0;
thread_local std::vector<PendingPointToPoint> t_group;

// A buffer that NCCL may use; says why not in `problem`.
bool CheckBuffer(const void* p, uint64_t count, int32_t type,
                 std::string* problem) {
  const size_t bytes = count * NcclTypeBytes(type);
  if (bytes == 0) return true;
  if (!IsDevice(p)) {
    *problem = "the buffer is not device memory";
    return false;
  }
  if (!InsideOneAllocation(p, bytes)) {
    *problem = "the buffer of " + std::to_string(bytes) +
               " bytes is not inside one live device allocation";
    return false;
  }
  return true;
}

ncclResult_t CheckComm(const char* function, ncclComm_t comm,
                       cudaStream_t stream) {
  if (!IsLiveCommunicator(comm)) {
    return BadNcclCall(std::string(function) +
                       ": the communicator is not a live one");
  }
  if (!comm->ready) {
    return BadNcclCall(std::string(function) +
                       ": the communicator is not ready yet");
  }
  if (comm->aborted || comm->async_error != ncclSuccess) {
    return BadNcclCall(std::string(function) +
                       ": the communicator has failed: " + comm->message);
  }
  if (!IsLiveStream(stream)) {
    return BadNcclCall(std::string(function) +
                       ": the stream is not a live one");
  }
  return ncclSuccess;
}

void Submit(ncclComm_t comm, cudaStream_t stream, const char* what,
            StepFunction steps) {
  comm->last = Enqueue(stream, what, std::move(steps), comm->last,
                       /*communication=*/true);
}

// Returns what the call or the group's end does.
ncclResult_t SubmitPointToPoint(const PendingPointToPoint& pending) {
  auto submit = [pending] {
    Submit(pending.comm, pending.stream, "NCCL send/receive",
           StepsWithFault(pending.comm, pending.calls));
  };
  if (pending.comm->blocking) {
    submit();
    return ncclSuccess;
  }
  pending.comm->under_way.push_back(std::move(submit));
  return ncclInProgress;
}

ncclResult_t DoPointToPoint(const char* function, const PointToPoint& call,
                            ncclComm_t comm, cudaStream_t stream) {
  ApiLock lock;
  if (ncclResult_t error = CheckComm(function, comm, stream);
      error != ncclSuccess) {
    return error;
  }
  if (call.peer < 0 || call.peer >= comm->size) {
    return BadNcclCall(std::string(function) + ": peer " +
                       std::to_string(call.peer) + " of " +
                       std::to_string(comm->size) + " ranks");
  }
  std::string problem;
  if (!CheckBuffer(call.is_send ? call.send : call.receive, call.count,
                   call.type, &problem)) {
    return BadNcclCall(std::string(function) + ": " + problem);
  }
  if (t_group_depth == 0) return SubmitPointToPoint({comm, stream, {call}});
  for (PendingPointToPoint& pending : t_group) {
    if (pending.comm == comm && pending.stream == stream) {
      pending.calls.push_back(call);
      return ncclSuccess;
    }
  }
  t_group.push_back({comm, stream, {call}});
  return ncclSuccess;
}

ncclResult_t DoCollective(const char* function, Collective call,
                          ncclComm_t comm, cudaStream_t stream) {
  ApiLock lock;
  if (ncclResult_t error = CheckComm(function, comm, stream);
      error != ncclSuccess) {
    return error;
  }
  CallSignature& s = call.signature;
  if (s.root < 0 || s.root >= comm->size) {
    return BadNcclCall(std::string(function) + ": root " +
                       std::to_string(s.root) + " of " +
                       std::to_string(comm->size) + " ranks");
  }
  const bool reduces = s.kind == CallKind::kAllReduce ||
                       s.kind == CallKind::kReduceScatter ||
                       s.kind == CallKind::kReduce;
  if (reduces && !CanReduce(s.type, s.reduction)) {
    return BadNcclCall(std::string(function) + ": this reduction of " +
                       NcclTypeName(s.type) + " is not emulated");
  }
  std::string problem;
  if ((Contributes(*comm, s) &&
       !CheckBuffer(call.send, SendCount(*comm, s), s.type, &problem)) ||
      (Receives(*comm, s) &&
       !CheckBuffer(call.receive, ReceiveCount(*comm, s), s.type, &problem))) {
    return BadNcclCall(std::string(function) + ": " + problem);
  }
  s.sequence = ++comm->collectives;
  Submit(comm, stream, function, CollectiveSteps(comm, call));
  return ncclSuccess;
}

CallSignature Signature(CallKind kind, ncclDataType_t type, size_t count,
                        ncclRedOp_t reduction, int root) {
  return {kind, type, reduction, root, count, 0};
}

}  // namespace
}  // namespace cuda_emu

using cuda_emu::ApiLock;
using cuda_emu::BadNcclCall;
using cuda_emu::CallKind;
using cuda_emu::Injected;
using cuda_emu::Signature;

extern "C" {

ncclResult_t ncclGroupStart() {
  if (const auto error = Injected<ncclInternalError>(__func__)) return error;
  ++cuda_emu::t_group_depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (const auto error = Injected<ncclInternalError>(__func__)) {
    cuda_emu::t_group.clear();
    cuda_emu::t_group_depth = 0;  // over all the same
    return error;
  }
  ApiLock lock;
  if (cuda_emu::t_group_depth == 0) {
    return BadNcclCall("ncclGroupEnd without ncclGroupStart");
  }
  if (--cuda_emu::t_group_depth > 0) return ncclSuccess;
  auto group = std::move(cuda_emu::t_group);
  cuda_emu::t_group.clear();
  ncclResult_t result = ncclSuccess;
  for (const auto& pending : group) {
    if (const auto more = cuda_emu::SubmitPointToPoint(pending)) result = more;
  }
  return result;
}

ncclResult_t ncclSend(const void* buffer, size_t count, ncclDataType_t type,
                      int peer, ncclComm_t comm, cudaStream_t stream) {
  if (const auto error = Injected<ncclInternalError>(__func__)) return error;
  return cuda_emu::DoPointToPoint(
      "ncclSend", {true, buffer, nullptr, count, type, peer}, comm, stream);
}

ncclResult_t ncclRecv(void* buffer, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  if (const auto error = Injected<ncclInternalError>(__func__)) return error;
  return cuda_emu::DoPointToPoint(
      "ncclRecv", {false, nullptr, buffer, count, type, peer}, comm, stream);
}

ncclResult_t ncclAllReduce(const void* send, void* receive, size_t count,
                           ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                           cudaStream_t stream) {
  return cuda_emu::DoCollective(
      "ncclAllReduce",
      {Signature(CallKind::kAllReduce, type, count, op, 0), send, receive},
      comm, stream);
}

ncclResult_t ncclAllGather(const void* send, void* receive, size_t count,
                           ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  return cuda_emu::DoCollective(
      "ncclAllGather",
      {Signature(CallKind::kAllGather, type, count, ncclSum, 0), send, receive},
      comm, stream);
}

ncclResult_t ncclReduceScatter(const void* send, void* receive, size_t count,
                               ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
  return cuda_emu::DoCollective(
      "ncclReduceScatter",
      {Signature(CallKind::kReduceScatter, type, count, op, 0), send, receive},
      comm, stream);
}

ncclResult_t ncclBroadcast(const void* send, void* receive, size_t count,
                           ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  return cuda_emu::DoCollective(
      "ncclBroadcast",
      {Signature(CallKind::kBroadcast, type, count, ncclSum, root), send,
       receive},
      comm, stream);
}

ncclResult_t ncclReduce(const void* send, void* receive, size_t count,
                        ncclDataType_t type, ncclRedOp_t op, int root,
                        ncclComm_t comm, cudaStream_t stream) {
  return cuda_emu::DoCollective(
      "ncclReduce",
      {Signature(CallKind::kReduce, type, count, op, root), send, receive},
      comm, stream);
}

}  // extern "C"
