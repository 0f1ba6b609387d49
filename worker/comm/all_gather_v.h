// All-gather of parts of uneven sizes, which every rank knows.
#ifndef OCTET_WORKER_COMM_ALL_GATHER_V_H_
#define OCTET_WORKER_COMM_ALL_GATHER_V_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/comm/communicator.h"

namespace octet {

// Rank r's part is bytes [offsets[r], offsets[r + 1]) of `table`, the same on
// every rank (R + 1 entries); this rank's part is in place, the others' are
// filled in. Host memory, or device memory with op.stream.
absl::Status AllGatherV(Communicator& communicator,
                        absl::Span<const int64_t> offsets, void* table,
                        const OpInfo& op);

}  // namespace octet

#endif  // OCTET_WORKER_COMM_ALL_GATHER_V_H_
