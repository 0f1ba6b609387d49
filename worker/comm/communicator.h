// The seam to other ranks: one group's collective channel over some transport
// (threads of a process, MPI processes, NCCL). Knows bytes, not tokens.
//
// Every rank of the group calls the same collectives in the same order. Each
// call names what it does (`OpInfo`), and ends in bounded time. A failure is
// the group's: the rank that notices tells the others, and all return the same
// code with a CollectiveFailure (FailureOf):
//   DEADLINE_EXCEEDED  a peer did not arrive within the deadline
//   UNAVAILABLE        the group was aborted, or a rank has left or died
//   INTERNAL           ranks called different collectives or sizes
// (INVALID_ARGUMENT, where the arguments were bad; the others: UNAVAILABLE.) A
// rank that had all it needs may return OK and learn of the failure from its
// next call. After any error the communicator is poisoned: further calls return
// the same error, and the only cure is a new group.
//
// Order on a device: work is in stream order (`OpInfo.stream`); host transports
// synchronize that stream first and are done when the call returns. Waiting
// costs at most a few percent of a core once it lasts.
//
// Threads: one thread at a time per Communicator, except Abort and stats, which
// any thread may call.
#ifndef OCTET_WORKER_COMM_COMMUNICATOR_H_
#define OCTET_WORKER_COMM_COMMUNICATOR_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/backend.h"

namespace octet {

// Names a collective for errors, counters and traces.
struct OpInfo {
  absl::string_view operation;  // a literal, for example "dispatch"; counters
                                // are kept per operation
  int layer = -1;
  int64_t step_id = -1;
  // How long to wait for peers; absent: the communicator's default.
  // InfiniteDuration for "next plan", the one wait that may last as long as
  // nobody asks anything.
  std::optional<absl::Duration> timeout = std::nullopt;
  Stream* stream = nullptr;  // the device work this call follows and precedes;
                             // nullptr on host memory
};

// Why a collective failed; unknown fields are -1 or empty.
struct CollectiveFailure {
  int rank = -1;  // who noticed
  std::string host;
  std::string operation;
  int layer = -1;
  int64_t step_id = -1;
  int64_t sequence_number = -1;  // of the collective in this group, from 0
  absl::Duration waited;
  std::vector<int> missing_ranks;  // peers that had not arrived
  std::string reason;

  // One sentence: "rank 2 (host a): dispatch of layer 3 in step 17 (collective
  // 412) waited 5s for ranks 1, 3: ...".
  std::string ToString() const;
  absl::Status ToStatus(absl::StatusCode code) const;
};

// The failure that a status carries; nullopt for other statuses.
std::optional<CollectiveFailure> FailureOf(const absl::Status& status);

// Bytes that left or reached this rank (a rank's own part is not counted).
struct OpCounters {
  std::string operation;
  int64_t calls = 0;
  int64_t bytes_sent = 0;
  int64_t bytes_received = 0;
  absl::Duration waited;  // time spent inside the calls
};

enum class ReduceOp { kSum, kMax };

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual absl::string_view transport() const = 0;  // "local", "mpi", "nccl"
  virtual std::string host(int rank) const = 0;     // host name of a rank

  // Part p of `send` goes to rank p, part p of `recv` comes from rank p. Parts
  // lie at the given byte offsets and need not be adjacent; offsets and sizes
  // have size() entries. What p sends here must equal what is expected from p,
  // else every rank that sees it returns INTERNAL naming both sizes.
  struct AllToAllVArgs {
    const void* send = nullptr;
    absl::Span<const int64_t> send_offsets;
    absl::Span<const int64_t> send_bytes;
    void* recv = nullptr;
    absl::Span<const int64_t> recv_offsets;
    absl::Span<const int64_t> recv_bytes;
  };
  virtual absl::Status AllToAllV(const AllToAllVArgs& args,
                                 const OpInfo& op) = 0;

  // recv holds size() parts of `bytes` each, in rank order.
  virtual absl::Status AllGather(const void* send, void* recv, int64_t bytes,
                                 const OpInfo& op) = 0;

  // In place over i64 elements (exact, so any order of summation gives the same
  // bits).
  virtual absl::Status AllReduceI64(absl::Span<int64_t> values, ReduceOp reduce,
                                    const OpInfo& op) = 0;

  // From `root` to all, in place. All ranks pass the same size.
  virtual absl::Status Broadcast(void* data, int64_t bytes, int root,
                                 const OpInfo& op) = 0;

  virtual absl::Status Barrier(const OpInfo& op) = 0;

  // The group's failure when one is known, else OK: one look that does not
  // wait, for a rank that waits for something else meanwhile (its device). `op`
  // says for what.
  virtual absl::Status Poll(const OpInfo& op) = 0;

  // For a rank that has waited too long for something else than the group's
  // messages: who is to blame? SetProgress says how far this rank has come
  // (first -1, then rising). RanksBehind returns the ranks, this one too, that
  // have not come to `point`, and those that do not answer within `patience`;
  // ranks answer from inside any call. Not a collective; no error.
  virtual void SetProgress(int64_t point) = 0;
  virtual std::vector<int> RanksBehind(int64_t point,
                                       absl::Duration patience) = 0;

  // Ends the group: every pending and later call on every rank returns
  // UNAVAILABLE with `reason` (over MPI the peers' processes may end instead,
  // after a grace time). Never blocks.
  virtual void Abort(const absl::Status& reason) = 0;

  virtual std::vector<OpCounters> counters() const = 0;
};

}  // namespace octet

#endif  // OCTET_WORKER_COMM_COMMUNICATOR_H_
