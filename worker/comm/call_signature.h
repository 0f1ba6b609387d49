// What a rank believes it is calling. Ranks show each other their signatures
// before they move data, so that ranks that have fallen out of step get a
// sentence instead of garbage. Plain bytes: it travels between processes of one
// program as it lies in memory.
#ifndef OCTET_WORKER_COMM_CALL_SIGNATURE_H_
#define OCTET_WORKER_COMM_CALL_SIGNATURE_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace octet {

enum class CollectiveKind : int32_t {
  kAllToAllV = 0,
  kAllGather = 1,
  kAllReduceI64 = 2,
  kBroadcast = 3,
  kBarrier = 4,
};

struct CallSignature {
  int64_t sequence_number = -1;
  int64_t bytes = 0;  // per rank; 0 for AllToAllV, whose parts have own sizes
  int64_t step_id = -1;
  int32_t layer = -1;
  int32_t variant = 0;  // root of a Broadcast, ReduceOp of an AllReduce
  CollectiveKind kind = CollectiveKind::kBarrier;
  char operation[44] = {};  // zero-terminated, long names are cut

  void SetOperation(absl::string_view name);
  // "dispatch (AllToAllV, layer 3, step 17)".
  std::string ToString() const;
};

// Empty when both are one collective. Layers and steps are compared only where
// both are known: a rank that waits for a plan does not know its step yet.
std::string DescribeMismatch(int rank, const CallSignature& mine, int peer,
                             const CallSignature& theirs);

// "rank 1 sends 12 bytes to rank 0, which expects 16".
std::string PartMismatch(int sender, int64_t sent_bytes, int receiver,
                         int64_t expected_bytes);

}  // namespace octet

#endif  // OCTET_WORKER_COMM_CALL_SIGNATURE_H_
