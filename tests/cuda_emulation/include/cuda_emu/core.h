// What device code may name: its own coordinates, barriers, and the entry
// points that the other headers here are built on. One CUDA thread is one
// fiber; nothing in this folder is thread-safe towards other host threads
// except through the CUDA API, which takes a lock.

// Before the guard, as it includes this file in its turn, after the toolkit's
// headers: those use the names that become macros below.
#include <cuda_runtime.h>

#ifndef CUDA_EMU_CORE_H_
#define CUDA_EMU_CORE_H_

#include <cstddef>
#include <cstdint>
#include <source_location>

#ifndef __launch_bounds__
#define __launch_bounds__(...)
#endif
#ifndef __restrict__
#define __restrict__ __restrict
#endif

// For emulator code that is compiled together with device code: the checked
// build must not see its loads and stores.
#define CUDA_EMU_NOINSTR __attribute__((no_sanitize("thread")))

namespace cuda_emu {

using Loc = std::source_location;

// Coordinates of the running thread. The device language reads them through the
// macros below.
struct ThreadView {
  uint3 tid;
  uint32_t linear;  // x + y * Dx + z * Dx * Dy
  uint32_t lane;    // linear % 32
  uint32_t warp;    // linear / 32
};

struct GridView {
  uint3 block;
  dim3 block_dim;
  dim3 grid_dim;
};

extern ThreadView* g_thread;  // null outside kernels
extern GridView g_grid;

enum class BarrierKind : uint8_t { kPlain, kCount, kAnd, kOr };
int BlockBarrier(int predicate, BarrierKind kind, const Loc& where);

enum class WarpOp : uint8_t {
  kShuffle,
  kBallot,
  kSync,
  kMatch,
  kReduce,
  kMma,
  kLdMatrix
};

// Runs once per meeting, with the lanes that take part and their arguments.
using WarpFunction = void (*)(uint32_t lanes, const void* const* in,
                              void* const* out);

// Every live lane named in `mask` meets here; the last to arrive runs
// `function`, then all go on. Lanes that meet in different operations or at
// different places are reported.
void WarpMeet(WarpOp op, uint32_t mask, const void* in, void* out,
              WarpFunction function, const Loc& where);

void* DynamicShared();

// Reports a __trap and ends the kernel.
[[noreturn]] void Trap(const Loc& where);

// Reports an error of the kernel as Report() does and lets it go on.
void ReportInKernel(const char* message, const Loc& where);

// Asynchronous copies to shared memory (cp.async): the bytes arrive when the
// thread waits for their group. In random order some arrive at once.
void AsyncCopy(void* shared, const void* global, uint32_t bytes,
               uint32_t source_bytes, const Loc& where);
void AsyncCopyCommit();
void AsyncCopyWait(uint32_t groups_left);

// Hooks of the checked build; nothing otherwise.
void NoteAtomic(const void* address, size_t bytes);
void NoteRead(const void* address, size_t bytes);

}  // namespace cuda_emu

#define threadIdx (::cuda_emu::g_thread->tid)
#define blockIdx (::cuda_emu::g_grid.block)
#define blockDim (::cuda_emu::g_grid.block_dim)
#define gridDim (::cuda_emu::g_grid.grid_dim)
inline constexpr int warpSize = 32;

inline void __syncthreads(
    const cuda_emu::Loc& where = cuda_emu::Loc::current()) {
  cuda_emu::BlockBarrier(0, cuda_emu::BarrierKind::kPlain, where);
}
inline int __syncthreads_count(
    int predicate, const cuda_emu::Loc& where = cuda_emu::Loc::current()) {
  return cuda_emu::BlockBarrier(predicate, cuda_emu::BarrierKind::kCount,
                                where);
}
inline int __syncthreads_and(
    int predicate, const cuda_emu::Loc& where = cuda_emu::Loc::current()) {
  return cuda_emu::BlockBarrier(predicate, cuda_emu::BarrierKind::kAnd, where);
}
inline int __syncthreads_or(
    int predicate, const cuda_emu::Loc& where = cuda_emu::Loc::current()) {
  return cuda_emu::BlockBarrier(predicate, cuda_emu::BarrierKind::kOr, where);
}
// Memory is sequentially consistent here: fences order nothing more.
inline void __threadfence() {}
inline void __threadfence_block() {}
[[noreturn]] inline void __trap(
    const cuda_emu::Loc& where = cuda_emu::Loc::current()) {
  cuda_emu::Trap(where);
}

#endif  // CUDA_EMU_CORE_H_
