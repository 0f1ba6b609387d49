// NCCL's communicators: making, asking, ending. All ranks are processes of one
// MPI job.

#include "tests/cuda_emulation/nccl/communicator_api.h"

#include <unistd.h>

#include <map>
#include <set>
#include <utility>

#include "tests/cuda_emulation/engine/injection.h"
#include "tests/cuda_emulation/engine/options.h"
#include "tests/cuda_emulation/engine/report.h"
#include "tests/cuda_emulation/nccl/communicator.h"
#include "tests/cuda_emulation/nccl/world.h"

namespace cuda_emu {
namespace {

thread_local std::string t_last_error;

std::map<ncclComm_t, Bootstrap>& Bootstraps() {
  static auto& bootstraps = *new std::map<ncclComm_t, Bootstrap>();
  return bootstraps;
}

// Communicators are kept for ever, so that late work and late uses find them.
std::set<ncclComm_t>& Communicators() {
  static auto& all = *new std::set<ncclComm_t>();
  return all;
}

void Pause() {
  constexpr useconds_t kMicroseconds = 50;
  ApiMutex().unlock();
  usleep(kMicroseconds);
  ApiMutex().lock();
}

ncclResult_t DoInit(ncclComm_t* out, int size, const ncclUniqueId& id, int rank,
                    bool blocking) {
  ApiLock lock;
  if (GetWorld().comm == MPI_COMM_NULL) {
    return BadNcclCall("ncclCommInitRank: call MPI_Init first");
  }
  if (!IsUniqueId(id)) {
    return BadNcclCall(
        "ncclCommInitRank: the id was not made by ncclGetUniqueId, or was not "
        "sent to this rank");
  }
  if (rank < 0 || rank >= size) {
    return BadNcclCall("ncclCommInitRank: rank " + std::to_string(rank) +
                       " of " + std::to_string(size));
  }
  auto* comm = new ncclComm();
  comm->rank = rank;
  comm->size = size;
  comm->blocking = blocking;
  *out = comm;
  Communicators().insert(comm);
  Bootstrap& bootstrap = Bootstraps().try_emplace(comm, comm, id).first->second;
  if (!blocking) return ncclInProgress;
  const double begin = NowSeconds();
  while (!bootstrap.Step()) {
    if (NowSeconds() - begin > GetOptions().nccl_seconds) {
      FailCommunicator(comm, ncclRemoteError, bootstrap.Waiting());
      break;
    }
    ProgressCommunication();
    Pause();
  }
  Bootstraps().erase(comm);
  t_last_error = comm->message;
  return comm->async_error;
}

void StepBootstrap(ncclComm_t comm) {
  const auto it = Bootstraps().find(comm);
  if (it != Bootstraps().end() && it->second.Step()) Bootstraps().erase(it);
}

// Often a query comes too early.
void StepGroups(ncclComm_t comm) {
  if (comm->under_way.empty() || OneIn(2)) return;
  for (const auto& submit : std::exchange(comm->under_way, {})) submit();
}

}  // namespace

ncclResult_t BadNcclCall(const std::string& why) {
  t_last_error = why;
  Refuse(cudaErrorInvalidValue, "nccl: world rank %d: %s", GetWorld().rank,
         why.c_str());
  return ncclInvalidArgument;
}

bool IsLiveCommunicator(ncclComm_t comm) {
  return Communicators().contains(comm) && !comm->destroyed;
}

}  // namespace cuda_emu

using cuda_emu::ApiLock;
using cuda_emu::BadNcclCall;
using cuda_emu::Injected;
using cuda_emu::IsLiveCommunicator;

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclInvalidArgument:
      return "invalid argument";
    case ncclInvalidUsage:
      return "invalid usage";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    case ncclInProgress:
      return "NCCL operation in progress";
    default:
      return "another ncclResult_t";
  }
}

const char* ncclGetLastError(ncclComm_t) {
  return cuda_emu::t_last_error.c_str();
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  if (const auto error = Injected<ncclInternalError>(__func__)) return error;
  ApiLock lock;
  if (cuda_emu::GetWorld().comm == MPI_COMM_NULL) {
    return BadNcclCall("ncclGetUniqueId: call MPI_Init first");
  }
  *id = cuda_emu::MakeUniqueId();
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId id,
                              int rank) {
  return cuda_emu::DoInit(comm, size, id, rank, /*blocking=*/true);
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id,
                                    int rank, ncclConfig_t* config) {
  if (const auto error = Injected<ncclInternalError>(__func__)) return error;
  return cuda_emu::DoInit(comm, size, id, rank,
                          config == nullptr || config->blocking != 0);
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  if (const auto error = Injected<ncclInternalError>(__func__)) return error;
  ApiLock lock;
  if (!IsLiveCommunicator(comm)) {
    return BadNcclCall("ncclCommFinalize: the communicator is not a live one");
  }
  cuda_emu::HostJoins(comm->last);
  return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  ApiLock lock;
  if (comm == nullptr) return ncclSuccess;
  if (!IsLiveCommunicator(comm)) {
    return BadNcclCall("ncclCommDestroy: the communicator is not a live one");
  }
  cuda_emu::HostJoins(comm->last);
  comm->destroyed = true;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  ApiLock lock;
  if (comm == nullptr) return ncclSuccess;
  if (!IsLiveCommunicator(comm)) {
    return BadNcclCall("ncclCommAbort: the communicator is not a live one");
  }
  comm->aborted = true;
  comm->under_way.clear();
  cuda_emu::Bootstraps().erase(comm);
  cuda_emu::HostJoins(comm->last);  // its work ends at once now
  comm->destroyed = true;
  return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  if (const auto error = Injected<ncclInternalError>(__func__)) return error;
  ApiLock lock;
  if (!IsLiveCommunicator(comm)) {
    return BadNcclCall(
        "ncclCommGetAsyncError: the communicator is not a live one");
  }
  cuda_emu::StepBootstrap(comm);
  cuda_emu::StepGroups(comm);
  cuda_emu::ProgressCommunication();
  *error = comm->async_error != ncclSuccess         ? comm->async_error
           : comm->ready && comm->under_way.empty() ? ncclSuccess
                                                    : ncclInProgress;
  if (comm->async_error != ncclSuccess) cuda_emu::t_last_error = comm->message;
  return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  *count = comm->size;
  return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  *rank = comm->rank;
  return ncclSuccess;
}

}  // extern "C"
