// Stacks that run in turns on one host thread. x86-64 only.
#ifndef CUDA_EMU_ENGINE_FIBER_H_
#define CUDA_EMU_ENGINE_FIBER_H_

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define CUDA_EMU_ASAN 1
#else
#define CUDA_EMU_ASAN 0
#endif

namespace cuda_emu {

struct Fiber {
  void* stack_pointer = nullptr;
  char* low = nullptr;  // lowest byte of the stack; a guard page lies below
  size_t size = 0;
  void* fake_stack = nullptr;  // the address sanitizer's
};

inline constexpr int kMaxFibers = 1024;  // threads of a block

// The pool's i-th fiber, its stack mapped on first use.
Fiber* GetFiber(int i);

// Makes `fiber` start in `entry` when it is next switched to. `entry` must not
// return.
void PrepareFiber(Fiber* fiber, void (*entry)());

// Saves the running fiber and goes on in `to`. A dying fiber is never returned
// to.
void SwitchFiber(Fiber* to, bool dying);

// To be called first thing by an entry function.
void EnterFiber();

// The host thread's own stack, to switch back to.
Fiber* MainFiber();
void SetCurrentToMain();

Fiber* CurrentFiber();

}  // namespace cuda_emu

#endif  // CUDA_EMU_ENGINE_FIBER_H_
