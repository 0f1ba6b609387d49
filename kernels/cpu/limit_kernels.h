// The inner loops of machine_limits.h, one set per instruction set. Internal to
// kernels/cpu.
#ifndef OCTET_KERNELS_CPU_LIMIT_KERNELS_H_
#define OCTET_KERNELS_CPU_LIMIT_KERNELS_H_

#include <cstddef>
#include <cstdint>

namespace octet::cpu {

// Reads every byte once; num_bytes is a multiple of 1024.
using ReadLoop = void (*)(const std::byte* data, size_t num_bytes);
// Runs about `rounds` rounds of independent multiply-adds; returns how many
// floating-point operations that was.
using PeakLoop = int64_t (*)(int64_t rounds);

void ReadAvx2(const std::byte* data, size_t num_bytes);
void ReadAvx512(const std::byte* data, size_t num_bytes);
int64_t PeakF32Avx2(int64_t rounds);
int64_t PeakF32Avx512(int64_t rounds);
int64_t PeakBf16Avx512(int64_t rounds);  // vdpbf16ps
int64_t PeakBf16Amx(int64_t rounds);     // tdpbf16ps

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_LIMIT_KERNELS_H_
