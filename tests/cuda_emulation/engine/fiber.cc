#include "tests/cuda_emulation/engine/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#if CUDA_EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

extern "C" void cuda_emu_switch(void** save, void* to);

// Saves the callee-saved registers and changes stacks. It leaves by a jump, not
// by `ret`: the processor's return predictor knows the wrong fiber's callers
// and would miss every time (24 ns a switch against 5).
asm(R"(
.text
.globl cuda_emu_switch
.type cuda_emu_switch,@function
.align 16
cuda_emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rdx
  jmpq *%rdx
.size cuda_emu_switch,.-cuda_emu_switch
)");

namespace cuda_emu {
namespace {

constexpr size_t kStackBytes = CUDA_EMU_ASAN ? 256 * 1024 : 64 * 1024;
constexpr size_t kGuardBytes = 4096;
constexpr int kSavedRegisters = 6;
// Stack tops at different offsets, or 1024 stacks fight for the same cache
// sets.
constexpr size_t kColours = 61;
constexpr size_t kColourBytes = 64;

Fiber g_fibers[kMaxFibers];
Fiber g_main;
Fiber* g_current = nullptr;

void MapStacks() {
  constexpr size_t kEach = kStackBytes + kGuardBytes;
  void* all = mmap(nullptr, kMaxFibers * kEach, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) {
    std::perror("cuda_emu: mapping fiber stacks");
    std::abort();
  }
  for (int i = 0; i < kMaxFibers; ++i) {
    char* low = static_cast<char*>(all) + i * kEach;
    mprotect(low, kGuardBytes, PROT_NONE);
    g_fibers[i].low = low + kGuardBytes;
    g_fibers[i].size = kStackBytes;
  }
}

}  // namespace

Fiber* GetFiber(int i) {
  if (g_fibers[0].low == nullptr) MapStacks();
  return &g_fibers[i];
}

void PrepareFiber(Fiber* fiber, void (*entry)()) {
#if CUDA_EMU_ASAN
  __asan_unpoison_memory_region(fiber->low, fiber->size);
#endif
  const size_t colour =
      static_cast<size_t>(fiber - g_fibers) % kColours * kColourBytes;
  // 16-byte aligned before the pushes below, so that `entry` starts as if
  // called.
  auto top = reinterpret_cast<uintptr_t>(fiber->low + fiber->size - colour);
  void** sp = reinterpret_cast<void**>(top & ~uintptr_t{15});
  *--sp = nullptr;
  *--sp = reinterpret_cast<void*>(entry);
  for (int i = 0; i < kSavedRegisters; ++i) *--sp = nullptr;
  fiber->stack_pointer = sp;
}

void SwitchFiber(Fiber* to, [[maybe_unused]] bool dying) {
  Fiber* from = g_current;
  g_current = to;
#if CUDA_EMU_ASAN
  __sanitizer_start_switch_fiber(dying ? nullptr : &from->fake_stack, to->low,
                                 to->size);
#endif
  cuda_emu_switch(&from->stack_pointer, to->stack_pointer);
#if CUDA_EMU_ASAN
  __sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);
#endif
}

void EnterFiber() {
#if CUDA_EMU_ASAN
  // Only the host's stack comes here without bounds of its own.
  const void* low = nullptr;
  size_t size = 0;
  __sanitizer_finish_switch_fiber(nullptr, &low, &size);
  const char* bottom = static_cast<const char*>(low);
  if (bottom < g_fibers[0].low ||
      bottom > g_fibers[kMaxFibers - 1].low + kStackBytes) {
    g_main.low = const_cast<char*>(bottom);
    g_main.size = size;
  }
#endif
}

Fiber* MainFiber() { return &g_main; }
void SetCurrentToMain() { g_current = &g_main; }
Fiber* CurrentFiber() { return g_current; }

}  // namespace cuda_emu
