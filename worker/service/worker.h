// A rank of a worker group, from options to its end: loads its share of a
// checkpoint, builds the engine and runs plans until the group ends.
#ifndef OCTET_WORKER_SERVICE_WORKER_H_
#define OCTET_WORKER_SERVICE_WORKER_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/cpu/isa.h"
#include "kernels/dtype.h"
#include "worker/comm/communicator.h"
#include "worker/device/rank_device.h"
#include "worker/model/quantization.h"

namespace octet {

// Of a rank; more than this is a mistake, and the coordinator keeps a list of
// them.
inline constexpr int64_t kMaxKvBlocks = int64_t{1} << 24;

// The same on every rank, but for the memory sizes where hosts differ.
struct WorkerOptions {
  std::string model_dir;
  std::string coordinator_address;  // "host:port"; used by rank 0

  // ---- what affects behaviour
  std::optional<DType> dtype;  // f32 or bf16; absent: the checkpoint's, exactly
  Quantization quantization;   // of weights, while they are loaded
  std::string placement;       // Placement::Parse; empty: the default
  RankDevice device;           // empty: the CPU

  // ---- what affects speed and memory
  int moe_chunks = 1;   // MoeShape::max_chunks
  int num_threads = 0;  // of this rank; 0: this host's processors divided by
                        // its ranks
  std::optional<cpu::Isa> isa;  // absent: the best one
  // KV cache of this rank: blocks, or bytes, or (both 0) DefaultKvCacheBytes.
  int64_t kv_blocks = 0;
  int64_t kv_cache_bytes = 0;
  int kv_block_tokens = 16;
  int64_t max_step_tokens = 512;  // of one rank in one step
  int64_t save_bytes_per_second = 0;  // TrainingEnvironment's

  // ---- patience
  absl::Duration connect_timeout = absl::Minutes(2);  // for the coordinator
  absl::Duration load_timeout = absl::Minutes(30);    // for the slowest rank
  // True ends a rank that loads or waits for the coordinator with CANCELLED;
  // one that serves is ended by its coordinator. Asked by any rank's thread.
  std::function<bool()> cancelled;
};

// A quarter of `available_bytes` (of the host, weights already loaded) divided
// by the host's ranks, but no more than 16 sequences of `max_position`
// tokens need, and room for one block at least.
int64_t DefaultKvCacheBytes(int64_t available_bytes, int ranks_on_host,
                            int64_t bytes_per_block, int64_t block_tokens,
                            int64_t max_position);

// Blocks until the group ends; OK after a Shutdown plan or when the coordinator
// closed the stream; on rank 0 UNAVAILABLE when it vanished. The same call on
// every rank of the group. A rank that fails aborts the group with its reason.
absl::Status RunWorkerRank(const WorkerOptions& options,
                           Communicator& communicator);

// A whole group as `num_ranks` threads of this process, which ends when all
// have; the first error that is not the echo of another rank's. `timeout`: of
// collectives.
absl::Status RunLocalWorkers(const WorkerOptions& options, int num_ranks,
                             absl::Duration timeout = absl::Seconds(30));

}  // namespace octet

#endif  // OCTET_WORKER_SERVICE_WORKER_H_
