#include "worker/comm/all_gather_v.h"

#include <vector>

#include "base/logging.h"

namespace octet {

absl::Status AllGatherV(Communicator& communicator,
                        absl::Span<const int64_t> offsets, void* table,
                        const OpInfo& op) {
  const int num_ranks = communicator.size(), own = communicator.rank();
  OCTET_CHECK(static_cast<int>(offsets.size()) == num_ranks + 1)
      << offsets.size() << " offsets";
  if (num_ranks == 1) return absl::OkStatus();
  const std::vector<int64_t> send_offsets(num_ranks, offsets[own]);
  std::vector<int64_t> send_bytes(num_ranks, offsets[own + 1] - offsets[own]);
  std::vector<int64_t> recv_bytes(num_ranks);
  for (int rank = 0; rank < num_ranks; ++rank) {
    recv_bytes[rank] = offsets[rank + 1] - offsets[rank];
  }
  send_bytes[own] = recv_bytes[own] = 0;
  return communicator.AllToAllV({table, send_offsets, send_bytes, table,
                                 offsets.first(num_ranks), recv_bytes},
                                op);
}

}  // namespace octet
