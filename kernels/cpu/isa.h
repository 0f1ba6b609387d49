// Instruction sets that the CPU backend has paths for, and what this processor
// can run.
#ifndef OCTET_KERNELS_CPU_ISA_H_
#define OCTET_KERNELS_CPU_ISA_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace octet::cpu {

// In rising order; each includes the ones before it. kAmx additionally needs
// the kernel's permission to use tile registers, which is asked for here, once
// per process.
enum class Isa { kAvx2 = 0, kAvx512 = 1, kAvx512Bf16 = 2, kAmx = 3 };

// "avx2", "avx512", "avx512_bf16", "amx".
absl::string_view Name(Isa isa);
// The highest one that this processor runs. A processor without AVX2 is
// reported by NewCpuBackend.
Isa BestIsa();
// All that this processor runs, lowest first; empty without AVX2.
std::vector<Isa> SupportedIsas();
// INVALID_ARGUMENT lists the known names.
absl::StatusOr<Isa> ParseIsa(absl::string_view name);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_ISA_H_
