// The threads and warps of the block that is running. Private to the engine.
#ifndef CUDA_EMU_ENGINE_THREAD_STATE_H_
#define CUDA_EMU_ENGINE_THREAD_STATE_H_

#include <cstdint>

#include "tests/cuda_emulation/engine/device_language.h"
#include "tests/cuda_emulation/engine/fiber.h"

namespace cuda_emu {

enum class ThreadStatus : uint8_t {
  kUnstarted,
  kReady,
  kAtBarrier,
  kAtWarpOp,
  kDone
};

struct Thread : ThreadView {
  Fiber* fiber;
  ThreadStatus status;
  // What it waits in.
  Loc where;
  int predicate;
  WarpOp op;
  uint32_t mask;
  const void* in;
  void* out;
  WarpFunction function;
};

// Lanes of a warp that meet under one mask.
struct Meeting {
  uint32_t mask;
  uint32_t arrived;
};

inline constexpr int kMaxMeetings = 8;

struct Warp {
  uint32_t alive;
  int num_meetings;
  Meeting meetings[kMaxMeetings];
};

struct BlockState {
  Thread threads[kMaxFibers];
  Warp warps[kMaxFibers / 32];
  uint16_t ready[kMaxFibers];  // ring of threads that may run
  uint32_t ready_head;
  uint32_t num_ready;
  uint32_t num_threads;
  uint32_t num_alive;
  uint32_t num_at_barrier;
  BarrierKind barrier_kind;
  int barrier_result;
};

// Device code reads its coordinates from here, which must not look like kernel
// data to the checked build: hence a section of its own.
extern BlockState g_block;

// Makes a thread runnable; takes the next one to run, null when none is.
void PushReady(uint32_t thread);
Thread* PopReady();

// Called on the stack of a thread that cannot go on; returns when it can.
void WaitInThread(Thread* self);

// Both release the waiting threads when the last one that they wait for is
// there.
void ReleaseBarrier();
bool CompleteMeeting(uint32_t warp, int meeting, const Thread* last);

void ReportDeadlock();

}  // namespace cuda_emu

#endif  // CUDA_EMU_ENGINE_THREAD_STATE_H_
