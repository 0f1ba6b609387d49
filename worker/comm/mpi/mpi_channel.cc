#include "worker/comm/mpi/mpi_channel.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/comm/backoff.h"

namespace octet {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr int kHeaderTag = 1;
constexpr int kPayloadTag = 2;
constexpr int kFailureTag = 3;
// MPI counts in int, parts may be larger; and small enough for tests to need
// several.
constexpr int64_t kChunkBytes = int64_t{8} << 20;
// For goodbyes and failure messages to leave; a peer that does not take them by
// then is stopped or dead.
constexpr std::chrono::milliseconds kPatience{200};

std::string MpiText(const char* function, int code) {
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  return absl::StrCat(function, ": ", absl::string_view(text, length));
}

void Drain(std::vector<MPI_Request>& requests) {
  const auto deadline = SteadyClock::now() + kPatience;
  Backoff backoff(/*crowded=*/true);
  while (true) {
    int done = 0;
    const int code = MPI_Testall(static_cast<int>(requests.size()),
                                 requests.data(), &done, MPI_STATUSES_IGNORE);
    if (done || code != MPI_SUCCESS || SteadyClock::now() >= deadline) return;
    backoff.Pause();
  }
}

}  // namespace

MpiChannel::MpiChannel(MpiEnvironment& environment)
    : environment_(environment),
      crowded_(static_cast<unsigned>(environment.local_size()) >
               std::thread::hardware_concurrency()),
      peers_(environment.size()),
      requests_(environment.size() + 2, MPI_REQUEST_NULL),
      roll_call_(environment.rank(), environment.size()) {}

MpiChannel::~MpiChannel() {
  if (failed_ || !connected_) return;
  std::lock_guard lock(environment_.mpi_mutex_);
  std::vector<MPI_Request> goodbyes;
  for (int peer = 0; peer < environment_.size(); ++peer) {
    if (peer == environment_.rank()) continue;
    Header& header = peers_[peer].outbox.header;
    header = Header();
    header.leaving = 1;
    MPI_Isend(&header, sizeof(header), MPI_BYTE, peer, kHeaderTag, data_,
              &goodbyes.emplace_back());
  }
  Drain(goodbyes);
  CancelReceives();
}

MpiChannel::Result MpiChannel::Connect(SteadyClock::time_point deadline) {
  std::lock_guard lock(environment_.mpi_mutex_);
  for (MPI_Comm* comm : {&data_, &control_}) {
    MPI_Request request = MPI_REQUEST_NULL;
    int code = MPI_Comm_idup(MPI_COMM_WORLD, comm, &request);
    Backoff backoff(crowded_);
    int done = 0;
    while (code == MPI_SUCCESS && !done) {
      code = MPI_Test(&request, &done, MPI_STATUS_IGNORE);
      if (done) break;
      Result result = CheckAbort();
      if (SteadyClock::now() >= deadline) {
        result = {absl::StatusCode::kDeadlineExceeded, {}, ""};
      }
      if (!result.ok()) {
        failed_ = true;
        return result;
      }
      backoff.Pause();
    }
    if (code != MPI_SUCCESS) {
      failed_ = true;
      return {
          absl::StatusCode::kUnavailable, {}, MpiText("MPI_Comm_idup", code)};
    }
    MPI_Comm_set_errhandler(*comm, MPI_ERRORS_RETURN);
  }
  for (int peer = 0; peer < environment_.size(); ++peer) OpenInbox(peer);
  MPI_Irecv(&incoming_failure_, sizeof(incoming_failure_), MPI_BYTE,
            MPI_ANY_SOURCE, kFailureTag, control_,
            &requests_[environment_.size()]);
  roll_call_.Open(control_, &requests_[environment_.size() + 1]);
  connected_ = true;
  return {};
}

void MpiChannel::OpenInbox(int peer) {
  if (peer == environment_.rank()) return;
  peers_[peer].arrived = false;
  MPI_Irecv(&peers_[peer].inbox, sizeof(Message), MPI_BYTE, peer, kHeaderTag,
            data_, &requests_[peer]);
}

MPI_Request* MpiChannel::NewTransfer(int peer, bool receive) {
  ++peers_[peer].transfers;
  transfers_.push_back({peer, receive});
  return &requests_.emplace_back(MPI_REQUEST_NULL);
}

void MpiChannel::StartSend(const CallSignature& signature,
                           const SendPart& part) {
  Message& message = peers_[part.peer].outbox;
  message.header = {signature, part.bytes, 0};
  int message_bytes = sizeof(Header);
  const bool fits = part.bytes <= kInlineBytes;
  if (fits && part.bytes > 0) {
    std::memcpy(message.payload, part.data, part.bytes);
    message_bytes += static_cast<int>(part.bytes);
  }
  MPI_Isend(&message, message_bytes, MPI_BYTE, part.peer, kHeaderTag, data_,
            NewTransfer(part.peer, false));
  if (fits) return;
  const char* data = static_cast<const char*>(part.data);
  for (int64_t begin = 0; begin < part.bytes; begin += kChunkBytes) {
    const int64_t bytes = std::min(kChunkBytes, part.bytes - begin);
    MPI_Isend(data + begin, static_cast<int>(bytes), MPI_BYTE, part.peer,
              kPayloadTag, data_, NewTransfer(part.peer, false));
  }
}

MpiChannel::Result MpiChannel::TakePart(const CallSignature& signature,
                                        int peer) {
  const Message& message = peers_[peer].inbox;
  const RecvPart& part = *peers_[peer].expected;
  if (message.header.leaving) {
    return {absl::StatusCode::kUnavailable, Missing(),
            absl::StrCat("rank ", peer, " has left the group")};
  }
  std::string problem = DescribeMismatch(environment_.rank(), signature, peer,
                                         message.header.signature);
  if (problem.empty() && message.header.bytes != part.bytes) {
    problem = PartMismatch(peer, message.header.bytes, environment_.rank(),
                           part.bytes);
  }
  if (!problem.empty()) return {absl::StatusCode::kInternal, {}, problem};
  char* data = static_cast<char*>(part.data);
  if (part.bytes <= kInlineBytes) {
    if (part.bytes > 0) std::memcpy(data, message.payload, part.bytes);
  } else {
    for (int64_t begin = 0; begin < part.bytes; begin += kChunkBytes) {
      const int64_t bytes = std::min(kChunkBytes, part.bytes - begin);
      MPI_Irecv(data + begin, static_cast<int>(bytes), MPI_BYTE, peer,
                kPayloadTag, data_, NewTransfer(peer, true));
    }
  }
  peers_[peer].expected = nullptr;
  OpenInbox(peer);
  return {};
}

MpiChannel::Result MpiChannel::TakeHeaders(const CallSignature& signature) {
  for (int peer = 0; peer < environment_.size(); ++peer) {
    const Peer& state = peers_[peer];
    if (!state.arrived) continue;
    const Header& header = state.inbox.header;
    if (state.expected != nullptr) {
      Result result = TakePart(signature, peer);
      if (!result.ok()) return result;
    } else if (!header.leaving &&
               header.signature.sequence_number <= signature.sequence_number) {
      // Not due yet in this exchange, but it must be of the same collective. A
      // peer that is ahead is fine: not every collective waits for everyone.
      std::string mismatch = DescribeMismatch(environment_.rank(), signature,
                                              peer, header.signature);
      if (!mismatch.empty()) {
        return {absl::StatusCode::kInternal, {}, mismatch};
      }
    }
  }
  return {};
}

bool MpiChannel::AllDone() const {
  return std::all_of(peers_.begin(), peers_.end(), [](const Peer& peer) {
    return peer.expected == nullptr && peer.transfers == 0;
  });
}

std::vector<int> MpiChannel::Missing() const {
  std::vector<int> missing;
  for (int peer = 0; peer < environment_.size(); ++peer) {
    if (peers_[peer].expected != nullptr || peers_[peer].transfers > 0) {
      missing.push_back(peer);
    }
  }
  return missing;
}

MpiChannel::Result MpiChannel::Poll(bool* progress) {
  completed_.resize(requests_.size());
  int count = 0;
  const int code =
      MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count,
                   completed_.data(), MPI_STATUSES_IGNORE);
  if (code != MPI_SUCCESS) {
    return {absl::StatusCode::kUnavailable, Missing(),
            MpiText("MPI_Testsome", code)};
  }
  if (count == MPI_UNDEFINED) count = 0;
  *progress = count > 0;
  const int size = environment_.size();
  for (int i = 0; i < count; ++i) {
    const int request = completed_[i];
    if (request < size) {
      peers_[request].arrived = true;
    } else if (request == size) {
      peer_failed_ = true;
    } else if (request == size + 1) {
      roll_call_.Take(&requests_[request]);
    } else {
      --peers_[transfers_[request - size - 2].peer].transfers;
    }
  }
  return {};
}

MpiChannel::Result MpiChannel::Drive(const CallSignature& signature,
                                     SteadyClock::time_point deadline) {
  Backoff backoff(crowded_);
  while (true) {
    Result result = TakeHeaders(signature);
    if (!result.ok() || AllDone()) return result;
    bool progress = false;
    result = Poll(&progress);
    if (result.ok()) result = CheckAbort();
    if (!result.ok()) return result;
    if (progress) {
      backoff.Reset();
    } else if (SteadyClock::now() >= deadline) {
      return {absl::StatusCode::kDeadlineExceeded, Missing(), ""};
    } else {
      backoff.Pause();
    }
  }
}

MpiChannel::Result MpiChannel::Exchange(const CallSignature& signature,
                                        absl::Span<const SendPart> sends,
                                        absl::Span<const RecvPart> recvs,
                                        SteadyClock::time_point deadline) {
  Result result;
  {
    std::lock_guard lock(environment_.mpi_mutex_);
    result = ExchangeLocked(signature, sends, recvs, deadline);
  }
  // An Abort that came after the last look found the lock taken.
  if (result.ok() && abort_requested_) {
    AnnounceAbort();
    result = CheckAbort();
  }
  return result;
}

MpiChannel::Result MpiChannel::Look() {
  std::lock_guard lock(environment_.mpi_mutex_);
  bool progress = false;
  Result result = Poll(&progress);
  if (result.ok()) result = CheckAbort();
  if (!result.ok()) {
    NameTheSilent(result);
    CancelReceives();
  }
  return result;
}

MpiChannel::Result MpiChannel::ExchangeLocked(
    const CallSignature& signature, absl::Span<const SendPart> sends,
    absl::Span<const RecvPart> recvs, SteadyClock::time_point deadline) {
  Result result = CheckAbort();
  if (result.ok()) {
    for (const RecvPart& part : recvs) peers_[part.peer].expected = &part;
    for (const SendPart& part : sends) StartSend(signature, part);
    result = Drive(signature, deadline);
  }
  // A peer that gave up may have freed what we have just read: it said so
  // before.
  bool progress = false;
  if (result.ok()) result = Poll(&progress);
  if (result.ok()) result = CheckAbort();
  if (!result.ok()) {
    NameTheSilent(result);
    CancelReceives();
    return result;
  }
  requests_.resize(environment_.size() + 2);
  transfers_.clear();
  return result;
}

void MpiChannel::CancelReceives() {
  std::vector<MPI_Request> receives;
  for (size_t i = 0; i < requests_.size(); ++i) {
    const size_t standing = static_cast<size_t>(environment_.size()) + 2;
    if (requests_[i] == MPI_REQUEST_NULL) continue;
    if (i >= standing && !transfers_[i - standing].receive) continue;
    MPI_Cancel(&requests_[i]);
    receives.push_back(requests_[i]);
  }
  Drain(receives);
}

void MpiChannel::Fail(absl::StatusCode code, const std::string& reason) {
  std::lock_guard lock(environment_.mpi_mutex_);
  Announce(code, reason);
}

void MpiChannel::Announce(absl::StatusCode code, const std::string& reason) {
  if (failed_) return;
  failed_ = true;
  environment_.broken_ = true;
  if (peer_failed_ || !connected_) return;  // that peer has told everyone
  outgoing_failure_.code = static_cast<int32_t>(code);
  outgoing_failure_.rank = environment_.rank();
  std::strncpy(outgoing_failure_.reason, reason.c_str(),
               sizeof(outgoing_failure_.reason) - 1);
  std::vector<MPI_Request> sends;
  for (int peer = 0; peer < environment_.size(); ++peer) {
    if (peer == environment_.rank()) continue;
    MPI_Isend(&outgoing_failure_, sizeof(outgoing_failure_), MPI_BYTE, peer,
              kFailureTag, control_, &sends.emplace_back());
  }
  Drain(sends);
}

}  // namespace octet
