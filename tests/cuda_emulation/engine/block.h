// Runs grids, one block at a time, one fiber per thread. A thread that ends
// hands its stack to the next one not yet started, so that a kernel without
// barriers never switches. Threads that have ended do not count at barriers, as
// on sm_70 and later.
#ifndef CUDA_EMU_ENGINE_BLOCK_H_
#define CUDA_EMU_ENGINE_BLOCK_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "tests/cuda_emulation/engine/device_language.h"

namespace cuda_emu {

// What a block of the newest supported GPU may ask for (227 KiB on sm_90).
inline constexpr size_t kMaxSharedBytes = 232448;
inline constexpr size_t kDefaultSharedBytes = 48 * 1024;

// Runs all blocks; `operation` is the id of the launch on its stream. Stops
// after the block that set the sticky error.
void RunGrid(const LaunchRequest& launch, uint32_t operation);

inline bool InKernel() { return g_thread != nullptr; }

// "block (x,y,z) thread (x,y,z) of the kernel launched at file:line", or
// "host".
std::string WhereInKernel();

// Ends the running kernel, as an illegal address does.
[[noreturn]] void KillKernel();

// Lets another thread run, sometimes (option preempt).
void MaybePreempt();

size_t DynamicSharedBytes();
char* DynamicSharedBegin();

// The running thread's stack and the kernel's parameters: memory that is its
// own.
struct OwnMemory {
  const char* stack_low;
  const char* stack_high;
  const char* arguments_low;
  const char* arguments_high;
};
const OwnMemory& GetOwnMemory();

}  // namespace cuda_emu

#endif  // CUDA_EMU_ENGINE_BLOCK_H_
