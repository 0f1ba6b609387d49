// Point-to-point exchanges between the ranks of an MPI job, with deadlines,
// abort and signature checks: what the collectives are made of, because MPI's
// own collectives cannot give up.
//
// Every part travels as a header (the sender's signature and the part's size)
// with the payload behind it in the same message when it is small, or in
// messages of their own, straight from and to the callers' buffers. A receive
// for the next header of every peer is always open, so that a peer that calls
// something else is seen whichever peer this rank happens to wait for.
//
// One thread at a time, except RequestAbort.
#ifndef OCTET_WORKER_COMM_MPI_MPI_CHANNEL_H_
#define OCTET_WORKER_COMM_MPI_MPI_CHANNEL_H_

#include <mpi.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/comm/call_signature.h"
#include "worker/comm/mpi/mpi_environment.h"
#include "worker/comm/mpi/mpi_roll_call.h"

namespace octet {

class MpiChannel {
 public:
  struct SendPart {
    int peer = 0;
    const void* data = nullptr;
    int64_t bytes = 0;
  };
  struct RecvPart {
    int peer = 0;
    void* data = nullptr;
    int64_t bytes = 0;
  };
  // Why an exchange failed; code is kOk when it did not.
  struct Result {
    absl::StatusCode code = absl::StatusCode::kOk;
    std::vector<int> missing_ranks;
    std::string reason;
    bool ok() const { return code == absl::StatusCode::kOk; }
  };

  explicit MpiChannel(MpiEnvironment& environment);
  // Tells the peers that this rank has left.
  ~MpiChannel();
  MpiChannel(const MpiChannel&) = delete;
  MpiChannel& operator=(const MpiChannel&) = delete;

  // Collective; first call of every channel.
  Result Connect(std::chrono::steady_clock::time_point deadline);

  // Sends and receives at most one part per peer and direction, none of them
  // with this rank itself. When it returns, the buffers are the caller's again;
  // after a failure nothing writes to them any more.
  Result Exchange(const CallSignature& signature,
                  absl::Span<const SendPart> sends,
                  absl::Span<const RecvPart> recvs,
                  std::chrono::steady_clock::time_point deadline);

  // The failure that a peer or an abort has announced, between exchanges; does
  // not wait.
  Result Look();

  // Communicator::SetProgress and RanksBehind.
  void SetProgress(int64_t point) { roll_call_.set_progress(point); }
  std::vector<int> RanksBehind(int64_t point,
                               std::chrono::milliseconds patience);

  // This rank has failed: tells the peers, who fail with the same code and
  // reason. Cancels what is under way.
  void Fail(absl::StatusCode code, const std::string& reason);

  // From any thread: the exchange under way, or else the next, returns
  // UNAVAILABLE, and the peers' too. Never blocks.
  void RequestAbort(const std::string& reason);

 private:
  struct Header {
    CallSignature signature;
    int64_t bytes = 0;
    int64_t leaving = 0;
  };
  struct FailureMessage {
    int32_t code = 0;
    int32_t rank = 0;
    char reason[1000] = {};
  };
  static constexpr size_t kMessageBytes = 4000;  // below vader's eager limit
  static constexpr int64_t kInlineBytes = kMessageBytes - sizeof(Header);
  struct Message {
    Header header;
    char payload[kInlineBytes];
  };
  struct Peer {
    Message inbox;  // the next header, when `arrived`
    Message outbox;
    bool arrived = false;
    const RecvPart* expected = nullptr;  // its header has not been taken
    int transfers = 0;                   // sends and payloads under way
  };
  struct Transfer {
    int peer = 0;
    bool receive = false;
  };

  Result ExchangeLocked(const CallSignature& signature,
                        absl::Span<const SendPart> sends,
                        absl::Span<const RecvPart> recvs,
                        std::chrono::steady_clock::time_point deadline);
  Result Drive(const CallSignature& signature,
               std::chrono::steady_clock::time_point deadline);
  void OpenInbox(int peer);
  MPI_Request* NewTransfer(int peer, bool receive);
  void StartSend(const CallSignature& signature, const SendPart& part);
  // Looks at the headers that have come and takes those that are expected.
  Result TakeHeaders(const CallSignature& signature);
  Result TakePart(const CallSignature& signature, int peer);
  bool AllDone() const;
  // One look at MPI; *progress tells whether anything has come.
  Result Poll(bool* progress);
  Result CheckAbort() const;
  std::vector<int> CallTheRoll(int64_t point,
                               std::chrono::milliseconds patience);
  // After a deadline or the launcher's request to end: who has stopped or died,
  // rather than all who are missing because they wait in turn.
  void NameTheSilent(Result& result);
  std::vector<int> Missing() const;
  void Announce(absl::StatusCode code, const std::string& reason);
  void AnnounceAbort();
  void CancelReceives();

  MpiEnvironment& environment_;
  const bool crowded_;
  MPI_Comm data_ = MPI_COMM_NULL;
  MPI_Comm control_ = MPI_COMM_NULL;
  std::vector<Peer> peers_;
  // [0, R): the peers' next headers; R: failure messages; R + 1: the roll call;
  // then transfers_, the sends and payloads of the exchange under way.
  std::vector<MPI_Request> requests_;
  std::vector<Transfer> transfers_;
  std::vector<int> completed_;  // Testsome's answer
  FailureMessage incoming_failure_;
  FailureMessage outgoing_failure_;
  MpiRollCall roll_call_;
  bool connected_ = false;
  bool peer_failed_ = false;  // incoming_failure_ has come
  bool failed_ = false;       // no MPI call from here on
  std::atomic<bool> abort_requested_{false};
  mutable std::mutex abort_mutex_;
  std::string abort_reason_;  // under abort_mutex_
};

}  // namespace octet

#endif  // OCTET_WORKER_COMM_MPI_MPI_CHANNEL_H_
