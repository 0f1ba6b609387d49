// Settings from the environment (CUDA_EMU_*), read once, and the emulation's
// own random numbers.
#ifndef CUDA_EMU_ENGINE_OPTIONS_H_
#define CUDA_EMU_ENGINE_OPTIONS_H_

#include <cstddef>
#include <cstdint>

namespace cuda_emu {

enum class Order { kSequential, kReverse, kRandom };
enum class StreamMode { kLazy, kEager, kRandom };
enum class NcclFault { kNone, kCount, kStop, kKill };

struct Options {
  // CUDA_EMU_ORDER = seq | reverse | random: threads and blocks.
  Order order;
  // CUDA_EMU_STREAMS = lazy | eager | random: when queued work runs.
  StreamMode streams;
  // CUDA_EMU_SEED, default 1.
  uint64_t seed;
  // CUDA_EMU_PREEMPT = n: the checked build changes thread at 1 in n memory
  // accesses; 0 (default) never.
  uint32_t preempt;
  // CUDA_EMU_PROTECT, default 1: the host may not touch device memory.
  bool protect;
  // CUDA_EMU_QUIET: reports are kept, not printed.
  bool quiet;
  // CUDA_EMU_ABORT: abort() at the first report.
  bool abort_on_error;
  // CUDA_EMU_ARENA_GIB, default 16: addresses are never used twice, so this
  // bounds all allocations of the process together.
  size_t arena_bytes;
  // CUDA_EMU_MEMORY: bytes allocated at once, default all of the arena.
  size_t memory_bytes;
  // CUDA_EMU_KERNEL_SECONDS, default 120: CPU time one kernel may take; 0 =
  // any.
  int kernel_seconds;
  // CUDA_EMU_NCCL_TIMEOUT in seconds, default 30: how long a NCCL call may
  // stand still while the host waits for it.
  double nccl_seconds;
  // CUDA_EMU_NCCL_ERRORS = abort | async: whether a mismatch ends the job or
  // becomes the communicator's asynchronous error.
  bool nccl_async_errors;
  // CUDA_EMU_NCCL_FAULT = none | count | stop | kill: what goes wrong when the
  // GPU of world rank CUDA_EMU_NCCL_FAULT_RANK (default 0) is in its group
  // number CUDA_EMU_NCCL_FAULT_GROUP (default 1, the first) of sends and
  // receives. Its first call is of one element less than said; or the process
  // is sent SIGSTOP or SIGKILL.
  NcclFault nccl_fault;
  int nccl_fault_rank;
  int nccl_fault_group;
  // CUDA_EMU_VARY_GEMM, default 1: cuBLAS sums in an order that depends on the
  // shape, as its heuristics do; 2: even with an algorithm that is given; 0:
  // never.
  int vary_gemm;
};

const Options& GetOptions();

uint64_t Random();
inline bool OneIn(uint32_t n) { return Random() % n == 0; }

}  // namespace cuda_emu

#endif  // CUDA_EMU_ENGINE_OPTIONS_H_
