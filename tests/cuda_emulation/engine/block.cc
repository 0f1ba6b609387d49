#include "tests/cuda_emulation/engine/block.h"

#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "tests/cuda_emulation/check/shadow.h"
#include "tests/cuda_emulation/engine/async_copy.h"
#include "tests/cuda_emulation/engine/options.h"
#include "tests/cuda_emulation/engine/report.h"
#include "tests/cuda_emulation/engine/thread_state.h"
#include "tests/cuda_emulation/include/cuda_emu/warp.h"

#if CUDA_EMU_ASAN
#include <sanitizer/asan_interface.h>
#endif

#define CUDA_EMU_STATE __attribute__((section("cuda_emu_state")))

namespace cuda_emu {

CUDA_EMU_STATE BlockState g_block = {};
CUDA_EMU_STATE ThreadView* g_thread = nullptr;
CUDA_EMU_STATE GridView g_grid = {};

namespace {

alignas(1024) char g_dynamic_shared[kMaxSharedBytes + 64];
size_t g_dynamic_shared_bytes = 0;
const LaunchRequest* g_launch = nullptr;
OwnMemory g_own = {};
int g_free_fibers[kMaxFibers];
int g_num_free_fibers = 0;

Thread* Self() { return static_cast<Thread*>(g_thread); }

void SwitchTo(Fiber* fiber, bool dying) {
  g_own.stack_low = fiber->low;
  g_own.stack_high = fiber->low + fiber->size;
  SwitchFiber(fiber, dying);
}

void EndThread(Thread* thread) {
  if (HasPendingAsyncCopies(thread->linear)) {
    Report(cudaErrorLaunchFailure,
           "%s ends with asynchronous copies (cp.async) that it never waited "
           "for",
           WhereInKernel().c_str());
    DropAsyncCopies(thread->linear);
  }
  thread->status = ThreadStatus::kDone;
  --g_block.num_alive;
  Warp& warp = g_block.warps[thread->warp];
  warp.alive &= ~(1u << thread->lane);
  for (int i = 0; i < warp.num_meetings; ++i) {
    if (warp.meetings[i].arrived != 0 &&
        CompleteMeeting(thread->warp, i, nullptr)) {
      --i;
    }
  }
  if (g_block.num_alive > 0 && g_block.num_at_barrier == g_block.num_alive) {
    ReleaseBarrier();
  }
}

void FiberMain() {
  EnterFiber();
  for (;;) {
    g_launch->invoke(g_launch->arguments.get());
    Fiber* fiber = CurrentFiber();
    EndThread(Self());
    Thread* next = PopReady();
    if (next == nullptr) {
      if (g_block.num_alive > 0) ReportDeadlock();
      KillKernel();
    }
    g_thread = next;
    if (next->status == ThreadStatus::kUnstarted) {
      next->fiber = fiber;
      next->status = ThreadStatus::kReady;
      continue;
    }
    g_free_fibers[g_num_free_fibers++] = static_cast<int>(fiber - GetFiber(0));
    SwitchTo(next->fiber, /*dying=*/true);
    __builtin_unreachable();
  }
}

void StartThread(Thread* thread) {
  thread->fiber = GetFiber(g_free_fibers[--g_num_free_fibers]);
  thread->status = ThreadStatus::kReady;
  PrepareFiber(thread->fiber, &FiberMain);
  SwitchTo(thread->fiber, /*dying=*/false);
}

void ResetThreads() {
  const uint32_t n = g_block.num_threads;
  g_num_free_fibers = 0;
  for (uint32_t i = n; i-- > 0;) {
    g_free_fibers[g_num_free_fibers++] = static_cast<int>(i);
  }
  g_block.num_alive = n;
  g_block.num_at_barrier = 0;
  g_block.ready_head = g_block.num_ready = 0;
  uint32_t i = 0;
  for (uint32_t z = 0; z < g_grid.block_dim.z; ++z) {
    for (uint32_t y = 0; y < g_grid.block_dim.y; ++y) {
      for (uint32_t x = 0; x < g_grid.block_dim.x; ++x, ++i) {
        Thread& thread = g_block.threads[i];
        thread.tid = {x, y, z};
        thread.linear = i;
        thread.lane = i % 32;
        thread.warp = i / 32;
        thread.status = ThreadStatus::kUnstarted;
      }
    }
  }
  for (uint32_t w = 0; w * 32 < n; ++w) {
    const uint32_t lanes = std::min(32u, n - w * 32);
    g_block.warps[w].alive = lanes == 32 ? ~0u : (1u << lanes) - 1;
    g_block.warps[w].num_meetings = 0;
  }
  const bool reverse = GetOptions().order == Order::kReverse;
  for (uint32_t k = 0; k < n; ++k) PushReady(reverse ? n - 1 - k : k);
}

void RunBlock() {
  ResetThreads();
  if (Checking()) ShadowBeginBlock();
  // Poison: a block starts with garbage in shared memory, not with zeros.
  std::memset(g_dynamic_shared, kPoisonByte, g_dynamic_shared_bytes);
  SetCurrentToMain();
  Thread* first = PopReady();
  g_thread = first;
  StartThread(first);
  g_thread = nullptr;
}

void OnKernelTimeout(int) {
  char text[400];
  const int n = std::snprintf(
      text, sizeof(text),
      "cuda_emu: a kernel runs for more than %d s of CPU time in %s: does it "
      "wait for another block? (one block runs at a time)\n",
      GetOptions().kernel_seconds, WhereInKernel().c_str());
  if (write(STDERR_FILENO, text, static_cast<size_t>(n)) < 0) std::abort();
  std::abort();
}

void SetAlarm(int seconds) {
  if (GetOptions().kernel_seconds == 0) return;
  static const auto installed = std::signal(SIGVTALRM, &OnKernelTimeout);
  (void)installed;
  itimerval timer{};
  timer.it_value.tv_sec = seconds;
  setitimer(ITIMER_VIRTUAL, &timer, nullptr);
}

// Block numbers in the order in which they run.
std::vector<uint32_t> BlockOrder(uint64_t count) {
  std::vector<uint32_t> order;
  if (GetOptions().order != Order::kRandom) return order;
  order.resize(count);
  for (uint64_t i = 0; i < count; ++i) order[i] = static_cast<uint32_t>(i);
  for (uint64_t i = count; i > 1; --i) {
    std::swap(order[i - 1], order[Random() % i]);
  }
  return order;
}

}  // namespace

size_t DynamicSharedBytes() { return g_dynamic_shared_bytes; }
char* DynamicSharedBegin() { return g_dynamic_shared; }
void* DynamicShared() { return g_dynamic_shared; }
const OwnMemory& GetOwnMemory() { return g_own; }

std::string WhereInKernel() {
  if (g_thread == nullptr) return "host";
  char text[512];
  const uint3& b = g_grid.block;
  const uint3& t = g_thread->tid;
  std::snprintf(text, sizeof(text),
                "block (%u,%u,%u) thread (%u,%u,%u) of the kernel launched at "
                "%s:%u",
                b.x, b.y, b.z, t.x, t.y, t.z, g_launch->where.file_name(),
                g_launch->where.line());
  return text;
}

void KillKernel() {
  g_thread = nullptr;
  SwitchTo(MainFiber(), /*dying=*/true);
  __builtin_unreachable();
}

void WaitInThread(Thread* self) {
  Thread* next = PopReady();
  if (next == nullptr) {
    ReportDeadlock();
    KillKernel();
  }
  g_thread = next;
  if (next == self) return;
  if (next->status == ThreadStatus::kUnstarted) {
    StartThread(next);
  } else {
    SwitchTo(next->fiber, /*dying=*/false);
  }
}

void MaybePreempt() {
  const uint32_t n = GetOptions().preempt;
  if (n == 0 || g_block.num_alive < 2 || !OneIn(n)) return;
  Thread* self = Self();
  self->status = ThreadStatus::kReady;
  PushReady(self->linear);
  WaitInThread(self);
}

void RunGrid(const LaunchRequest& launch, uint32_t operation) {
  g_launch = &launch;
  g_own.arguments_low = static_cast<const char*>(launch.arguments.get());
  g_own.arguments_high = g_own.arguments_low + launch.argument_bytes;
  g_block.num_threads = launch.block.x * launch.block.y * launch.block.z;
  g_grid.block_dim = launch.block;
  g_grid.grid_dim = launch.grid;
  g_dynamic_shared_bytes = launch.shared_bytes;
  if (Checking()) ShadowBeginKernel(operation);
#if CUDA_EMU_ASAN
  __asan_poison_memory_region(g_dynamic_shared + launch.shared_bytes,
                              sizeof(g_dynamic_shared) - launch.shared_bytes);
#endif
  SetAlarm(GetOptions().kernel_seconds);
  const uint64_t count =
      uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  const std::vector<uint32_t> order = BlockOrder(count);
  const bool reverse = GetOptions().order == Order::kReverse;
  for (uint64_t k = 0; k < count; ++k) {
    const uint64_t b = !order.empty() ? order[k] : reverse ? count - 1 - k : k;
    g_grid.block = {static_cast<uint32_t>(b % launch.grid.x),
                    static_cast<uint32_t>(b / launch.grid.x % launch.grid.y),
                    static_cast<uint32_t>(b / launch.grid.x / launch.grid.y)};
    RunBlock();
    if (StickyError() != cudaSuccess) break;
  }
  SetAlarm(0);
  DropAllAsyncCopies();
#if CUDA_EMU_ASAN
  __asan_unpoison_memory_region(g_dynamic_shared, sizeof(g_dynamic_shared));
#endif
  g_launch = nullptr;
}

void Trap(const Loc& where) {
  Report(cudaErrorLaunchFailure, "__trap at %s:%u, %s", where.file_name(),
         where.line(), WhereInKernel().c_str());
  KillKernel();
}

void ReportInKernel(const char* message, const Loc& where) {
  Report(cudaErrorLaunchFailure, "%s at %s:%u, %s", message, where.file_name(),
         where.line(), WhereInKernel().c_str());
}

}  // namespace cuda_emu
