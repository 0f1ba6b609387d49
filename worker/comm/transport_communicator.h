// What every transport shares: argument checks, sequence numbers, deadlines,
// counters, and the rule that an error poisons the communicator. A transport
// implements the Run... methods and never sees bad arguments.
#ifndef OCTET_WORKER_COMM_TRANSPORT_COMMUNICATOR_H_
#define OCTET_WORKER_COMM_TRANSPORT_COMMUNICATOR_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "worker/comm/call_signature.h"
#include "worker/comm/communicator.h"
#include "worker/comm/counters.h"

namespace octet {

struct CommunicatorOptions {
  // How long a collective waits for peers when its OpInfo does not say.
  absl::Duration timeout = absl::Seconds(60);
  // Waits for the device work before a collective (OpInfo.stream). Empty: the
  // backend works inside its calls, as the CPU backend does.
  std::function<absl::Status(Stream*)> synchronize;
};

class TransportCommunicator : public Communicator {
 public:
  absl::Status AllToAllV(const AllToAllVArgs& args, const OpInfo& op) final;
  absl::Status AllGather(const void* send, void* recv, int64_t bytes,
                         const OpInfo& op) final;
  absl::Status AllReduceI64(absl::Span<int64_t> values, ReduceOp reduce,
                            const OpInfo& op) final;
  absl::Status Broadcast(void* data, int64_t bytes, int root,
                         const OpInfo& op) final;
  absl::Status Barrier(const OpInfo& op) final;
  absl::Status Poll(const OpInfo& op) final;
  std::vector<OpCounters> counters() const final {
    return counters_.Snapshot();
  }

 protected:
  // One call in progress.
  struct Call {
    CallSignature signature;
    absl::string_view operation;
    absl::Duration timeout;
    // The steady clock, because a wall clock may jump; max(): no deadline.
    std::chrono::steady_clock::time_point start;
    std::chrono::steady_clock::time_point deadline;
    int64_t bytes_sent = 0;
    int64_t bytes_received = 0;
  };

  explicit TransportCommunicator(CommunicatorOptions options)
      : options_(std::move(options)) {}

  // Arguments are valid. An error of these poisons the communicator; it comes
  // from Failure(). They add to call.bytes_sent and bytes_received.
  virtual absl::Status RunAllToAllV(const AllToAllVArgs& args, Call& call) = 0;
  virtual absl::Status RunAllGather(const void* send, void* recv,
                                    Call& call) = 0;
  virtual absl::Status RunAllReduceI64(absl::Span<int64_t> values,
                                       ReduceOp reduce, Call& call) = 0;
  virtual absl::Status RunBroadcast(void* data, int root, Call& call) = 0;
  virtual absl::Status RunBarrier(Call& call) = 0;
  // One look at the group.
  virtual absl::Status RunPoll(Call& call) = 0;

  // A call that starts now.
  Call NewCall(CallSignature signature, const OpInfo& op) const;
  absl::Status Failure(const Call& call, absl::StatusCode code,
                       std::vector<int> missing_ranks,
                       std::string reason) const;
  // "no answer within 5s".
  static std::string DeadlineReason(const Call& call);

 private:
  template <typename Run>
  absl::Status Execute(CallSignature signature, const OpInfo& op,
                       const std::string& bad_argument, Run run);

  const CommunicatorOptions options_;
  CommCounters counters_;
  int64_t next_sequence_number_ = 0;
  absl::Status poison_;
};

// What is wrong with the arguments in a group of `size` ranks, or "".
std::string CheckAllToAllV(const Communicator::AllToAllVArgs& args, int size);

// a[i] = a[i] (+) b[i]; sums wrap around.
void ReduceInto(absl::Span<int64_t> a, const int64_t* b, ReduceOp reduce);

}  // namespace octet

#endif  // OCTET_WORKER_COMM_TRANSPORT_COMMUNICATOR_H_
