// The CPU backend: AVX2 as the floor; AVX-512, AVX-512 BF16 and AMX are picked
// at run time.
#ifndef OCTET_KERNELS_CPU_CPU_BACKEND_H_
#define OCTET_KERNELS_CPU_CPU_BACKEND_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cpu/isa.h"

namespace octet {

// More than any host has processors.
inline constexpr int kMaxCpuThreads = 1024;

struct CpuBackendOptions {
  int num_threads = 1;            // of the pool, the calling thread included
  cpu::Isa isa = cpu::BestIsa();  // never higher than what the processor has
};

// INVALID_ARGUMENT when num_threads is not 1 to kMaxCpuThreads;
// RESOURCE_EXHAUSTED when they cannot be started; FAILED_PRECONDITION when the
// processor lacks `isa` (or AVX2).
absl::StatusOr<std::unique_ptr<Backend>> NewCpuBackend(
    const CpuBackendOptions& options);

}  // namespace octet

#endif  // OCTET_KERNELS_CPU_CPU_BACKEND_H_
