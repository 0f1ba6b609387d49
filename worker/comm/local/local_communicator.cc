#include "worker/comm/local/local_communicator.h"

#include <unistd.h>

#include <climits>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "worker/comm/local/local_group.h"

namespace octet {
namespace {

void Copy(void* to, int64_t to_offset, const void* from, int64_t from_offset,
          int64_t bytes) {
  if (bytes == 0) return;
  char* target = static_cast<char*>(to) + to_offset;
  const char* source = static_cast<const char*>(from) + from_offset;
  if (target != source) std::memcpy(target, source, static_cast<size_t>(bytes));
}

}  // namespace

LocalCommunicator::LocalCommunicator(int rank,
                                     std::shared_ptr<LocalGroupState> group,
                                     CommunicatorOptions options)
    : TransportCommunicator(std::move(options)),
      rank_(rank),
      group_(std::move(group)) {}

LocalCommunicator::~LocalCommunicator() { group_->rendezvous.Leave(rank_); }

void LocalCommunicator::Abort(const absl::Status& reason) {
  group_->rendezvous.Fail(absl::StatusCode::kUnavailable,
                          std::string(reason.message()));
}

std::vector<int> LocalCommunicator::RanksBehind(int64_t point,
                                                absl::Duration /*patience*/) {
  std::vector<int> behind;
  for (int rank = 0; rank < size(); ++rank) {
    if (group_->offers[rank].progress < point) behind.push_back(rank);
  }
  return behind;
}

LocalGroupState::Offer& LocalCommunicator::OfferOf(int rank,
                                                   const Call& call) const {
  return group_->offers[rank].by_parity[call.signature.sequence_number % 2];
}

absl::Status LocalCommunicator::Fail(const Call& call, absl::StatusCode code,
                                     std::vector<int> missing_ranks,
                                     const std::string& reason) {
  absl::Status status = Failure(call, code, std::move(missing_ranks), reason);
  // A deadline is one rank's experience: peers learn whose.
  group_->rendezvous.Fail(code, code == absl::StatusCode::kDeadlineExceeded
                                    ? std::string(status.message())
                                    : reason);
  group_->rendezvous.AwaitReaders();
  return status;
}

absl::Status LocalCommunicator::GroupFailure(const Call& call) {
  const Rendezvous::Reason failure = group_->rendezvous.failure();
  std::vector<int> missing = group_->rendezvous.Missing(rank_);
  group_->rendezvous.AwaitReaders();
  return Failure(call, failure.code, std::move(missing), failure.text);
}

absl::Status LocalCommunicator::Close(const Call& call) {
  switch (group_->rendezvous.Enter(rank_, call.deadline)) {
    case Rendezvous::Outcome::kAll:
      return absl::OkStatus();
    case Rendezvous::Outcome::kFailed:
      return GroupFailure(call);
    case Rendezvous::Outcome::kDeadline:
      break;
  }
  return Fail(call, absl::StatusCode::kDeadlineExceeded,
              group_->rendezvous.Missing(rank_), DeadlineReason(call));
}

absl::Status LocalCommunicator::Open(const Call& call, const void* data,
                                     absl::Span<const int64_t> offsets,
                                     absl::Span<const int64_t> bytes) {
  OfferOf(rank_, call) = {call.signature, data, offsets, bytes};
  OCTET_RETURN_IF_ERROR(Close(call));
  for (int peer = 0; peer < size(); ++peer) {
    const std::string mismatch = DescribeMismatch(
        rank_, call.signature, peer, OfferOf(peer, call).signature);
    if (!mismatch.empty()) {
      return Fail(call, absl::StatusCode::kInternal, {}, mismatch);
    }
  }
  return absl::OkStatus();
}

template <typename Read>
absl::Status LocalCommunicator::ReadPeers(const Call& call, Read read) {
  for (int step = 1; step < size(); ++step) {
    const int peer = (rank_ + step) % size();
    if (!group_->rendezvous.BeginReading(rank_)) return GroupFailure(call);
    const std::string problem = read(peer, OfferOf(peer, call));
    group_->rendezvous.EndReading(rank_);
    if (!problem.empty()) {
      return Fail(call, absl::StatusCode::kInternal, {}, problem);
    }
  }
  return absl::OkStatus();
}

absl::Status LocalCommunicator::RunPoll(Call& call) {
  return group_->rendezvous.failure().code == absl::StatusCode::kOk
             ? absl::OkStatus()
             : GroupFailure(call);
}

absl::Status LocalCommunicator::RunAllToAllV(const AllToAllVArgs& args,
                                             Call& call) {
  OCTET_RETURN_IF_ERROR(
      Open(call, args.send, args.send_offsets, args.send_bytes));
  if (args.send_bytes[rank_] != args.recv_bytes[rank_]) {
    return Fail(call, absl::StatusCode::kInternal, {},
                PartMismatch(rank_, args.send_bytes[rank_], rank_,
                             args.recv_bytes[rank_]));
  }
  Copy(args.recv, args.recv_offsets[rank_], args.send, args.send_offsets[rank_],
       args.recv_bytes[rank_]);
  OCTET_RETURN_IF_ERROR(
      ReadPeers(call, [&](int peer, const Offer& offer) -> std::string {
        const int64_t bytes = args.recv_bytes[peer];
        if (offer.bytes[rank_] != bytes) {
          return PartMismatch(peer, offer.bytes[rank_], rank_, bytes);
        }
        Copy(args.recv, args.recv_offsets[peer], offer.data,
             offer.offsets[rank_], bytes);
        call.bytes_sent += args.send_bytes[peer];
        call.bytes_received += bytes;
        return "";
      }));
  return Close(call);
}

absl::Status LocalCommunicator::RunAllGather(const void* send, void* recv,
                                             Call& call) {
  const int64_t bytes = call.signature.bytes;
  OCTET_RETURN_IF_ERROR(Open(call, send));
  Copy(recv, rank_ * bytes, send, 0, bytes);
  OCTET_RETURN_IF_ERROR(
      ReadPeers(call, [&](int peer, const Offer& offer) -> std::string {
        Copy(recv, peer * bytes, offer.data, 0, bytes);
        call.bytes_sent += bytes;
        call.bytes_received += bytes;
        return "";
      }));
  return Close(call);
}

absl::Status LocalCommunicator::RunAllReduceI64(absl::Span<int64_t> values,
                                                ReduceOp reduce, Call& call) {
  OCTET_RETURN_IF_ERROR(Open(call, values.data()));
  // Peers read `values` until Close, so the result waits apart.
  std::vector<int64_t> result(values.begin(), values.end());
  OCTET_RETURN_IF_ERROR(
      ReadPeers(call, [&](int /*peer*/, const Offer& offer) -> std::string {
        ReduceInto(absl::MakeSpan(result),
                   static_cast<const int64_t*>(offer.data), reduce);
        call.bytes_sent += call.signature.bytes;
        call.bytes_received += call.signature.bytes;
        return "";
      }));
  OCTET_RETURN_IF_ERROR(Close(call));
  Copy(values.data(), 0, result.data(), 0, call.signature.bytes);
  return absl::OkStatus();
}

absl::Status LocalCommunicator::RunBroadcast(void* data, int root, Call& call) {
  const int64_t bytes = call.signature.bytes;
  OCTET_RETURN_IF_ERROR(Open(call, data));
  if (rank_ == root) {
    call.bytes_sent += bytes * (size() - 1);
    return Close(call);
  }
  OCTET_RETURN_IF_ERROR(
      ReadPeers(call, [&](int peer, const Offer& offer) -> std::string {
        if (peer == root) Copy(data, 0, offer.data, 0, bytes);
        return "";
      }));
  call.bytes_received += bytes;
  return Close(call);
}

absl::Status LocalCommunicator::RunBarrier(Call& call) {
  return Open(call, nullptr);
}

std::vector<std::unique_ptr<Communicator>> NewLocalGroup(
    int size, LocalGroupOptions options) {
  OCTET_CHECK(size >= 1) << "group of " << size << " ranks";
  if (options.host.empty()) {
    char name[HOST_NAME_MAX + 1] = {};
    gethostname(name, sizeof(name) - 1);
    options.host = name;
  }
  auto group = std::make_shared<LocalGroupState>(size, options.host);
  std::vector<std::unique_ptr<Communicator>> communicators;
  communicators.reserve(size);
  for (int rank = 0; rank < size; ++rank) {
    communicators.push_back(
        std::make_unique<LocalCommunicator>(rank, group, options.communicator));
  }
  return communicators;
}

}  // namespace octet
