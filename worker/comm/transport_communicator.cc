#include "worker/comm/transport_communicator.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/str_cat.h"

namespace octet {
namespace {

CallSignature Signature(CollectiveKind kind, int64_t bytes, int32_t variant) {
  CallSignature signature;
  signature.kind = kind;
  signature.bytes = bytes;
  signature.variant = variant;
  return signature;
}

using SteadyClock = std::chrono::steady_clock;

SteadyClock::time_point After(SteadyClock::time_point start,
                              absl::Duration timeout) {
  // Longer than this is for ever, and the sum must not overflow.
  if (timeout > absl::Hours(24 * 365)) return SteadyClock::time_point::max();
  return start + absl::ToChronoNanoseconds(timeout);
}

std::string CheckBuffer(absl::string_view name, const void* data,
                        int64_t bytes) {
  if (bytes < 0) {
    return absl::StrCat(name, " has ", bytes, " bytes, expected 0 or more");
  }
  if (bytes > 0 && data == nullptr) {
    return absl::StrCat(name, " is null, expected ", bytes, " bytes");
  }
  return "";
}

}  // namespace

template <typename Run>
absl::Status TransportCommunicator::Execute(CallSignature signature,
                                            const OpInfo& op,
                                            const std::string& bad_argument,
                                            Run run) {
  if (!poison_.ok()) return poison_;
  signature.sequence_number = next_sequence_number_++;
  Call call = NewCall(signature, op);
  absl::Status status;
  if (!bad_argument.empty()) {
    status =
        Failure(call, absl::StatusCode::kInvalidArgument, {}, bad_argument);
  } else if (op.stream != nullptr && options_.synchronize) {
    status = options_.synchronize(op.stream);
  }
  if (!status.ok()) {
    // This rank will not arrive: tell the others now, not at their deadline.
    Abort(status);
    return poison_ = status;
  }
  status = run(call);
  counters_.Add(op.operation, call.bytes_sent, call.bytes_received,
                absl::FromChrono(SteadyClock::now() - call.start));
  if (!status.ok()) poison_ = status;
  return status;
}

TransportCommunicator::Call TransportCommunicator::NewCall(
    CallSignature signature, const OpInfo& op) const {
  signature.layer = op.layer;
  signature.step_id = op.step_id;
  signature.SetOperation(op.operation);
  Call call;
  call.signature = signature;
  call.operation = op.operation;
  call.timeout = op.timeout.value_or(options_.timeout);
  call.start = SteadyClock::now();
  call.deadline = After(call.start, call.timeout);
  return call;
}

absl::Status TransportCommunicator::AllToAllV(const AllToAllVArgs& args,
                                              const OpInfo& op) {
  return Execute(Signature(CollectiveKind::kAllToAllV, 0, 0), op,
                 CheckAllToAllV(args, size()),
                 [&](Call& call) { return RunAllToAllV(args, call); });
}

absl::Status TransportCommunicator::AllGather(const void* send, void* recv,
                                              int64_t bytes, const OpInfo& op) {
  std::string problem = CheckBuffer("send buffer", send, bytes);
  if (problem.empty()) problem = CheckBuffer("receive buffer", recv, bytes);
  return Execute(Signature(CollectiveKind::kAllGather, bytes, 0), op, problem,
                 [&](Call& call) { return RunAllGather(send, recv, call); });
}

absl::Status TransportCommunicator::AllReduceI64(absl::Span<int64_t> values,
                                                 ReduceOp reduce,
                                                 const OpInfo& op) {
  const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(int64_t));
  return Execute(
      Signature(CollectiveKind::kAllReduceI64, bytes, static_cast<int>(reduce)),
      op, "",
      [&](Call& call) { return RunAllReduceI64(values, reduce, call); });
}

absl::Status TransportCommunicator::Broadcast(void* data, int64_t bytes,
                                              int root, const OpInfo& op) {
  std::string problem = CheckBuffer("buffer", data, bytes);
  if (root < 0 || root >= size()) {
    problem =
        absl::StrCat("root is rank ", root, ", expected 0 to ", size() - 1);
  }
  return Execute(Signature(CollectiveKind::kBroadcast, bytes, root), op,
                 problem,
                 [&](Call& call) { return RunBroadcast(data, root, call); });
}

absl::Status TransportCommunicator::Barrier(const OpInfo& op) {
  return Execute(Signature(CollectiveKind::kBarrier, 0, 0), op, "",
                 [&](Call& call) { return RunBarrier(call); });
}

absl::Status TransportCommunicator::Poll(const OpInfo& op) {
  if (!poison_.ok()) return poison_;
  Call call = NewCall(CallSignature(), op);
  return poison_ = RunPoll(call);
}

absl::Status TransportCommunicator::Failure(const Call& call,
                                            absl::StatusCode code,
                                            std::vector<int> missing_ranks,
                                            std::string reason) const {
  CollectiveFailure failure;
  failure.rank = rank();
  failure.host = host(rank());
  failure.operation = std::string(call.operation);
  failure.layer = call.signature.layer;
  failure.step_id = call.signature.step_id;
  failure.sequence_number = call.signature.sequence_number;
  failure.waited = absl::FromChrono(SteadyClock::now() - call.start);
  failure.missing_ranks = std::move(missing_ranks);
  failure.reason = std::move(reason);
  return failure.ToStatus(code);
}

std::string TransportCommunicator::DeadlineReason(const Call& call) {
  return absl::StrCat("no answer within ", absl::FormatDuration(call.timeout));
}

std::string CheckAllToAllV(const Communicator::AllToAllVArgs& args, int size) {
  const size_t expected = static_cast<size_t>(size);
  if (args.send_offsets.size() != expected ||
      args.send_bytes.size() != expected ||
      args.recv_offsets.size() != expected ||
      args.recv_bytes.size() != expected) {
    return absl::StrCat("AllToAllV got ", args.send_offsets.size(),
                        " send offsets, ", args.send_bytes.size(),
                        " send sizes, ", args.recv_offsets.size(),
                        " receive offsets and ", args.recv_bytes.size(),
                        " receive sizes, expected ", expected, " of each");
  }
  for (size_t peer = 0; peer < expected; ++peer) {
    if (args.send_offsets[peer] < 0 || args.recv_offsets[peer] < 0) {
      return absl::StrCat("AllToAllV got a negative offset for rank ", peer);
    }
    std::string problem = CheckBuffer(absl::StrCat("part to rank ", peer),
                                      args.send, args.send_bytes[peer]);
    if (problem.empty()) {
      problem = CheckBuffer(absl::StrCat("part from rank ", peer), args.recv,
                            args.recv_bytes[peer]);
    }
    if (!problem.empty()) return problem;
  }
  return "";
}

void ReduceInto(absl::Span<int64_t> a, const int64_t* b, ReduceOp reduce) {
  for (size_t i = 0; i < a.size(); ++i) {
    // Unsigned, because signed overflow is undefined.
    a[i] = reduce == ReduceOp::kMax
               ? std::max(a[i], b[i])
               : static_cast<int64_t>(static_cast<uint64_t>(a[i]) +
                                      static_cast<uint64_t>(b[i]));
  }
}

}  // namespace octet
