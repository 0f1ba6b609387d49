// The checked build's memory of who wrote and read what: device memory and
// shared memory have a shadow that knows, for every two bytes, the last writer
// and the last reader. Nothing here runs in the other builds (Checking() is
// false).
#ifndef CUDA_EMU_CHECK_SHADOW_H_
#define CUDA_EMU_CHECK_SHADOW_H_

#include <cstddef>
#include <cstdint>

#include "tests/cuda_emulation/include/cuda_emu/control.h"

namespace cuda_emu {

// Called by the constructors that -fsanitize=thread puts into device code.
void EnableChecking();

enum class AccessKind { kRead, kWrite, kAtomicRead, kAtomic };

// One load or store of device code.
void CheckAccess(const char* address, size_t bytes, AccessKind kind);

void ShadowBeginKernel(uint32_t operation);
void ShadowBeginBlock();
void ShadowBarrier();
void ShadowSyncWarp(uint32_t warp);

// cp.async: from its start to the end of its wait nobody may read the target.
void ShadowAsyncStart(const void* shared, size_t bytes);
void ShadowAsyncArrival(const void* shared, size_t bytes);

// A copy, NCCL call or matrix product that touches device memory.
void ShadowRange(const void* device, size_t bytes, bool write,
                 uint32_t operation);

// Fresh device memory: nothing written yet.
void ShadowForget(const void* device, size_t bytes);

}  // namespace cuda_emu

#endif  // CUDA_EMU_CHECK_SHADOW_H_
