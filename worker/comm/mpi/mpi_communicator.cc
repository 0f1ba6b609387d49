#include "worker/comm/mpi/mpi_communicator.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/status_macros.h"

namespace octet {
namespace {

void CopyOwn(void* to, const void* from, int64_t bytes) {
  if (bytes > 0 && to != from) {
    std::memcpy(to, from, static_cast<size_t>(bytes));
  }
}

// A binomial tree over positions 0..size-1 with its root at 0: position p's
// parent is p without its lowest set bit, its children are p + 2^i below that
// bit.
int LowestBit(int position, int size) {
  int bit = 1;
  while (bit < size && (position & bit) == 0) bit *= 2;
  return bit;  // for the root: the first power of two that is not below size
}

}  // namespace

MpiCommunicator::MpiCommunicator(MpiEnvironment& environment,
                                 CommunicatorOptions options)
    : TransportCommunicator(std::move(options)),
      environment_(environment),
      channel_(environment),
      hosts_(environment.size()) {
  hosts_[rank()] = environment.host();
}

absl::Status MpiCommunicator::Connect() {
  Call call = NewCall(CallSignature(), {.operation = "connect"});
  OCTET_RETURN_IF_ERROR(Check(call, channel_.Connect(call.deadline)));
  using HostName = std::array<char, 256>;
  std::vector<HostName> names(size());
  HostName own = {};
  environment_.host().copy(own.data(), own.size() - 1);
  call.signature.bytes = sizeof(HostName);
  OCTET_RETURN_IF_ERROR(RunAllGather(own.data(), names.data(), call));
  for (int peer = 0; peer < size(); ++peer) hosts_[peer] = names[peer].data();
  return absl::OkStatus();
}

void MpiCommunicator::Abort(const absl::Status& reason) {
  channel_.RequestAbort(std::string(reason.message()));
}

absl::Status MpiCommunicator::Check(const Call& call,
                                    MpiChannel::Result result) {
  if (result.ok()) return absl::OkStatus();
  const bool late = result.code == absl::StatusCode::kDeadlineExceeded;
  if (late && result.reason.empty()) result.reason = DeadlineReason(call);
  absl::Status status = Failure(call, result.code,
                                std::move(result.missing_ranks), result.reason);
  // A deadline is one rank's experience: peers learn whose.
  channel_.Fail(result.code,
                late ? std::string(status.message()) : result.reason);
  return status;
}

absl::Status MpiCommunicator::Exchange(Call& call,
                                       absl::Span<const SendPart> sends,
                                       absl::Span<const RecvPart> recvs) {
  OCTET_RETURN_IF_ERROR(Check(
      call, channel_.Exchange(call.signature, sends, recvs, call.deadline)));
  for (const SendPart& part : sends) call.bytes_sent += part.bytes;
  for (const RecvPart& part : recvs) call.bytes_received += part.bytes;
  return absl::OkStatus();
}

absl::Status MpiCommunicator::RunAllToAllV(const AllToAllVArgs& args,
                                           Call& call) {
  const int me = rank();
  if (args.send_bytes[me] != args.recv_bytes[me]) {
    return Check(
        call, {absl::StatusCode::kInternal,
               {},
               PartMismatch(me, args.send_bytes[me], me, args.recv_bytes[me])});
  }
  const char* send = static_cast<const char*>(args.send);
  char* recv = static_cast<char*>(args.recv);
  std::vector<SendPart> sends;
  std::vector<RecvPart> recvs;
  for (int step = 1; step < size(); ++step) {
    const int to = (me + step) % size();
    const int from = (me + size() - step) % size();
    sends.push_back({to, send + args.send_offsets[to], args.send_bytes[to]});
    recvs.push_back(
        {from, recv + args.recv_offsets[from], args.recv_bytes[from]});
  }
  CopyOwn(recv + args.recv_offsets[me], send + args.send_offsets[me],
          args.send_bytes[me]);
  return Exchange(call, sends, recvs);
}

absl::Status MpiCommunicator::RunAllGather(const void* send, void* recv,
                                           Call& call) {
  const int64_t bytes = call.signature.bytes;
  char* target = static_cast<char*>(recv);
  std::vector<SendPart> sends;
  std::vector<RecvPart> recvs;
  for (int step = 1; step < size(); ++step) {
    const int to = (rank() + step) % size();
    const int from = (rank() + size() - step) % size();
    sends.push_back({to, send, bytes});
    recvs.push_back({from, target + from * bytes, bytes});
  }
  CopyOwn(target + rank() * bytes, send, bytes);
  return Exchange(call, sends, recvs);
}

absl::Status MpiCommunicator::RunBroadcast(void* data, int root, Call& call) {
  const int64_t bytes = call.signature.bytes;
  const int position = (rank() - root + size()) % size();
  const int low = LowestBit(position, size());
  const auto rank_at = [&](int p) { return (p + root) % size(); };
  if (position != 0) {
    const RecvPart from_parent{rank_at(position - low), data, bytes};
    OCTET_RETURN_IF_ERROR(Exchange(call, {}, {from_parent}));
  }
  std::vector<SendPart> to_children;
  for (int bit = low / 2; bit >= 1; bit /= 2) {
    if (position + bit < size()) {
      to_children.push_back({rank_at(position + bit), data, bytes});
    }
  }
  return Exchange(call, to_children, {});
}

absl::Status MpiCommunicator::RunAllReduceI64(absl::Span<int64_t> values,
                                              ReduceOp reduce, Call& call) {
  const int64_t bytes = call.signature.bytes;
  const int low = LowestBit(rank(), size());
  std::vector<std::vector<int64_t>> from_children;
  std::vector<RecvPart> recvs;
  for (int bit = 1; bit < low && rank() + bit < size(); bit *= 2) {
    from_children.emplace_back(values.size());
    recvs.push_back({rank() + bit, from_children.back().data(), bytes});
  }
  OCTET_RETURN_IF_ERROR(Exchange(call, {}, recvs));
  for (const std::vector<int64_t>& child : from_children) {
    ReduceInto(values, child.data(), reduce);
  }
  if (rank() != 0) {
    const SendPart to_parent{rank() - low, values.data(), bytes};
    OCTET_RETURN_IF_ERROR(Exchange(call, {to_parent}, {}));
  }
  return RunBroadcast(values.data(), 0, call);
}

absl::Status MpiCommunicator::RunBarrier(Call& call) {
  for (int distance = 1; distance < size(); distance *= 2) {
    const SendPart to{(rank() + distance) % size(), nullptr, 0};
    const RecvPart from{(rank() + size() - distance) % size(), nullptr, 0};
    OCTET_RETURN_IF_ERROR(Exchange(call, {to}, {from}));
  }
  // A group of one has nobody to exchange with, but may be aborted.
  return size() == 1 ? Exchange(call, {}, {}) : absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Communicator>> NewMpiCommunicator(
    MpiEnvironment& environment, CommunicatorOptions options) {
  auto communicator =
      std::make_unique<MpiCommunicator>(environment, std::move(options));
  OCTET_RETURN_IF_ERROR(communicator->Connect());
  return communicator;
}

}  // namespace octet
