#include "tests/cuda_emulation/nccl/exchange.h"

#include <nccl.h>

#include <cstring>
#include <set>

#include "tests/cuda_emulation/nccl/world.h"

namespace cuda_emu {
namespace {

struct TypeInfo {
  const char* name;
  size_t bytes;
};

TypeInfo Info(int32_t type) {
  switch (static_cast<ncclDataType_t>(type)) {
    case ncclInt8:
      return {"int8", 1};
    case ncclUint8:
      return {"uint8", 1};
    case ncclInt32:
      return {"int32", 4};
    case ncclUint32:
      return {"uint32", 4};
    case ncclInt64:
      return {"int64", 8};
    case ncclUint64:
      return {"uint64", 8};
    case ncclFloat16:
      return {"f16", 2};
    case ncclFloat32:
      return {"f32", 4};
    case ncclFloat64:
      return {"f64", 8};
    case ncclBfloat16:
      return {"bf16", 2};
    default:
      return {"another type", 1};
  }
}

const char* KindName(CallKind kind) {
  switch (kind) {
    case CallKind::kPointToPoint:
      return "send/receive";
    case CallKind::kAllReduce:
      return "ncclAllReduce";
    case CallKind::kAllGather:
      return "ncclAllGather";
    case CallKind::kReduceScatter:
      return "ncclReduceScatter";
    case CallKind::kBroadcast:
      return "ncclBroadcast";
    case CallKind::kReduce:
      return "ncclReduce";
  }
  return "unknown";
}

}  // namespace

size_t NcclTypeBytes(int32_t type) { return Info(type).bytes; }
const char* NcclTypeName(int32_t type) { return Info(type).name; }

std::string Describe(const CallSignature& s) {
  std::string text = KindName(s.kind);
  if (s.kind != CallKind::kPointToPoint) {
    text += " #" + std::to_string(s.sequence);
  }
  text += " of " + std::to_string(s.count) + " x " + NcclTypeName(s.type);
  if (s.kind == CallKind::kBroadcast || s.kind == CallKind::kReduce) {
    text += " root " + std::to_string(s.root);
  }
  return text;
}

void Exchange::AddSend(int peer, const CallSignature& signature,
                       const void* payload, size_t bytes) {
  Send& send = sends_.emplace_back();
  send.peer = peer;
  send.signature = signature;
  // A copy: MPI may read it while device memory is closed to the host.
  send.message.resize(sizeof(signature) + bytes);
  std::memcpy(send.message.data(), &signature, sizeof(signature));
  if (bytes > 0) {
    std::memcpy(send.message.data() + sizeof(signature), payload, bytes);
  }
}

size_t Exchange::AddReceive(int peer, const CallSignature& expected) {
  receives_.emplace_back().expected = expected;
  received_.emplace_back().peer = peer;
  return receives_.size() - 1;
}

bool Exchange::StepSend(Send* send) {
  const int to = (*world_ranks_)[static_cast<size_t>(send->peer)];
  if (!send->started) {
    send->started = true;
    // Synchronous: a send without a receive hangs here as it does with NCCL.
    PMPI_Issend(send->message.data(), static_cast<int>(send->message.size()),
                MPI_BYTE, to, tag_, GetWorld().comm, &send->request);
  }
  int done = 0;
  PMPI_Test(&send->request, &done, MPI_STATUS_IGNORE);
  send->done = done != 0;
  return send->done;
}

bool Exchange::StepReceive(size_t i) {
  Receive& receive = receives_[i];
  Received& result = received_[i];
  if (!receive.started) {
    const int from = (*world_ranks_)[static_cast<size_t>(result.peer)];
    int found = 0;
    MPI_Message message;
    MPI_Status status;
    PMPI_Improbe(from, tag_, GetWorld().comm, &found, &message, &status);
    if (!found) return false;
    int bytes = 0;
    PMPI_Get_count(&status, MPI_BYTE, &bytes);
    receive.started = true;
    receive.message.resize(static_cast<size_t>(bytes));
    PMPI_Imrecv(receive.message.data(), bytes, MPI_BYTE, &message,
                &receive.request);
  }
  int done = 0;
  PMPI_Test(&receive.request, &done, MPI_STATUS_IGNORE);
  if (!done) return false;
  std::memcpy(&result.signature, receive.message.data(),
              sizeof(result.signature));
  result.payload.assign(receive.message.begin() + sizeof(result.signature),
                        receive.message.end());
  receive.message.clear();
  receive.done = true;
  return true;
}

bool Exchange::Step() {
  if (last_progress_ == 0) last_progress_ = NowSeconds();
  bool all = true;
  bool progress = false;
  for (Send& send : sends_) {
    if (send.done) continue;
    if (StepSend(&send)) {
      progress = true;
    } else {
      all = false;
    }
  }
  std::set<int> waiting;  // messages of one peer come in order
  for (size_t i = 0; i < receives_.size(); ++i) {
    if (receives_[i].done) continue;
    const int peer = received_[i].peer;
    if (!waiting.contains(peer) && StepReceive(i)) {
      progress = true;
    } else {
      waiting.insert(peer);
      all = false;
    }
  }
  if (progress) last_progress_ = NowSeconds();
  return all;
}

std::string Exchange::Open() const {
  std::string text;
  for (const Send& send : sends_) {
    if (send.done) continue;
    text += " send " + std::to_string(send.signature.count) + " x " +
            NcclTypeName(send.signature.type) + " to rank " +
            std::to_string(send.peer) + ";";
  }
  for (size_t i = 0; i < receives_.size(); ++i) {
    if (receives_[i].done) continue;
    text += " receive " + std::to_string(receives_[i].expected.count) + " x " +
            NcclTypeName(receives_[i].expected.type) + " from rank " +
            std::to_string(received_[i].peer) + ";";
  }
  return text;
}

}  // namespace cuda_emu
