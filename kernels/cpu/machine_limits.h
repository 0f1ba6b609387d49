// What this machine can do at most: the denominators of every speed we report.
// Measured, not read from a data sheet, and meant to be measured in the same
// run as the speed that is compared with them.
//
// Each call occupies the pool for some tenths of a second and returns the best
// of its repetitions (a limit is what the machine can reach, and other
// processes only ever subtract from it).
#ifndef OCTET_KERNELS_CPU_MACHINE_LIMITS_H_
#define OCTET_KERNELS_CPU_MACHINE_LIMITS_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/dtype.h"

namespace octet::cpu {

// Bytes per second that all threads of the pool together read from memory, each
// its own `bytes_per_thread` (several times the last-level cache; touched
// once). The bound of a decode step. RESOURCE_EXHAUSTED without the memory.
absl::StatusOr<double> MeasureReadBandwidth(Isa isa, ThreadPool& pool,
                                            size_t bytes_per_thread);

// Floating-point operations per second (a multiply-add counts 2) of all threads
// together in the fastest unit that `isa` multiplies `dtype` (f32 or bf16) in,
// with operands in registers. The bound of prefill. bf16 on avx2 and avx512 is
// widened to f32 and has the bound of f32.
double MeasureMatrixPeak(Isa isa, DType dtype, ThreadPool& pool);

// "AMD EPYC, 2 processors, avx512_bf16": processor, processors
// online, best instruction set.
std::string DescribeMachine();

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_MACHINE_LIMITS_H_
