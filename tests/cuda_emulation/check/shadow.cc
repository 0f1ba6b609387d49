#include "tests/cuda_emulation/check/shadow.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <utility>

#include "tests/cuda_emulation/engine/block.h"
#include "tests/cuda_emulation/engine/options.h"
#include "tests/cuda_emulation/engine/report.h"
#include "tests/cuda_emulation/runtime/memory.h"
#include "tests/cuda_emulation/runtime/operations.h"

// Set by the linker: initialised data, zeroed data (which holds every
// __shared__ variable), and the emulation's state that device code reads its
// coordinates from.
extern "C" char __executable_start, __data_start, __bss_start, _end;
extern "C" char __start_cuda_emu_state, __stop_cuda_emu_state;

namespace cuda_emu {
namespace {

constexpr uint32_t kNoBlock = ~0u;
constexpr size_t kGranule = 2;  // bytes per cell

// One access. `owner` is the operation that made it (global memory) or the
// number of the block's run (shared memory); 0 means never.
struct Access {
  uint32_t owner;
  uint32_t block;
  uint16_t barriers;    // of the block, before it
  uint16_t warp_syncs;  // of the warp, since the barrier
  uint16_t thread;
  uint8_t bytes;          // which of the granule's two bytes
  uint8_t atomic : 1;     // made by an atomic operation
  uint8_t several : 1;    // more than one thread, between the same barriers
  uint8_t in_flight : 1;  // a cp.async that has not been waited for
};

struct Cell {
  Access write;
  Access read;
};

struct Shadow {
  Cell* global = nullptr;
  Cell* shared = nullptr;
  uint32_t operation = 0;
  uint32_t block = 0;
  uint32_t block_run = 0;  // counts blocks over the whole process
  uint16_t barriers = 0;
  uint16_t warp_syncs[32] = {};
  // Findings already reported for this operation.
  std::set<std::pair<std::string, const void*>> reported;
};

bool g_checking = false;

Shadow& S() {
  static auto& shadow = *new Shadow();
  return shadow;
}

Cell* MapCells(size_t bytes) {
  void* cells = mmap(nullptr, (bytes / kGranule + 8) * sizeof(Cell),
                     PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (cells == MAP_FAILED) {
    std::perror("cuda_emu: mapping shadow memory (see CUDA_EMU_ARENA_GIB)");
    std::abort();
  }
  return static_cast<Cell*>(cells);
}

void Init() {
  if (S().global != nullptr) return;
  S().global = MapCells(GetOptions().arena_bytes);
  S().shared = MapCells(static_cast<size_t>(&_end - &__data_start));
}

Cell* GlobalCell(const void* p) {
  Init();
  return S().global + (static_cast<const char*>(p) - ArenaBase()) / kGranule;
}

Cell* SharedCell(const void* p) {
  Init();
  return S().shared + (static_cast<const char*>(p) - &__data_start) / kGranule;
}

// Once per kind of finding and place in the code (or address), in one
// operation.
bool FirstTime(const char* kind, const void* place) {
  return S().reported.emplace(kind, place).second;
}

struct Here {
  bool shared;
  uint16_t thread;
};

bool IsOrdered(const Access& a, uint16_t thread, bool shared) {
  if (!shared) {
    if (a.owner != S().operation) return HappensBefore(a.owner, S().operation);
    if (a.block != S().block) return false;
  }
  if (a.thread == thread) return true;
  if (a.barriers != S().barriers) return true;
  return a.thread / 32 == thread / 32 &&
         a.warp_syncs != S().warp_syncs[thread / 32];
}

void ReportRace(const char* kind, const char* p, const Access& a,
                const Here& here, bool writing, bool other_wrote,
                const void* place) {
  if (!FirstTime(kind, place)) return;
  char other[300];
  if (!here.shared && a.owner != S().operation) {
    std::snprintf(other, sizeof(other),
                  "operation #%u (%s), which no stream order, event or "
                  "synchronisation puts before this one",
                  a.owner, OperationName(a.owner));
  } else if (!here.shared && a.block != S().block) {
    std::snprintf(other, sizeof(other), "block %u thread %u of the same kernel",
                  a.block, a.thread);
  } else {
    std::snprintf(other, sizeof(other), "thread %u with no barrier between",
                  a.thread);
  }
  Report(cudaErrorLaunchFailure,
         "race (%s) on %s memory %p: %s by %s; %s by %s", kind,
         here.shared ? "shared" : "global", static_cast<const void*>(p),
         writing ? "written" : "read", WhereInKernel().c_str(),
         other_wrote ? "written" : "read", other);
}

void CheckAlignment(const char* p, size_t n) {
  if (reinterpret_cast<uintptr_t>(p) % n == 0) return;
  Report(cudaErrorMisalignedAddress, "misaligned %zu-byte access at %p by %s",
         n, static_cast<const void*>(p), WhereInKernel().c_str());
}

// The cell of an address that device code may use; null when it needs no check.
// Does not return for one that it may not use.
Cell* FindCell(const char* p, size_t n, bool writing, bool* shared) {
  const char* verb = writing ? "write" : "read";
  if (p >= &__data_start && p < &_end) {
    *shared = p >= &__bss_start;
    const char* dynamic = DynamicSharedBegin();
    const bool in_dynamic = p >= dynamic && p < dynamic + kMaxSharedBytes;
    if (in_dynamic && p + n > dynamic + DynamicSharedBytes()) {
      Report(cudaErrorIllegalAddress,
             "%s past dynamic shared memory (byte %zu of %zu) by %s", verb,
             static_cast<size_t>(p - dynamic), DynamicSharedBytes(),
             WhereInKernel().c_str());
      KillKernel();
    }
    return *shared ? SharedCell(p) : nullptr;  // the rest is constants
  }
  *shared = false;
  if (IsDevice(p)) {
    const Allocation* allocation = FindAllocation(p);
    if (allocation == nullptr || !InsideOneAllocation(p, n)) {
      const char* where =
          allocation == nullptr ? "outside every device allocation"
          : !allocation->live   ? "in a freed device allocation"
                                : "past the end of its device allocation";
      Report(cudaErrorIllegalAddress, "%s of %zu bytes at %p %s by %s", verb, n,
             static_cast<const void*>(p), where, WhereInKernel().c_str());
      KillKernel();
    }
    return GlobalCell(p);
  }
  if (IsPinned(p, n)) return nullptr;
  Report(cudaErrorIllegalAddress, "device code %s host memory %p by %s",
         writing ? "wrote" : "read", static_cast<const void*>(p),
         WhereInKernel().c_str());
  KillKernel();
}

bool IsOwnMemory(const char* p, bool writing) {
  const OwnMemory& own = GetOwnMemory();
  if (p >= own.stack_low && p < own.stack_high) return true;
  if (p >= &__start_cuda_emu_state && p < &__stop_cuda_emu_state) return true;
  if (writing) return false;
  if (p >= &__executable_start && p < &__data_start) return true;  // constants
  return p >= own.arguments_low && p < own.arguments_high;
}

void CheckRead(Cell* cell, const char* p, const Here& here, bool written,
               size_t n, const void* place) {
  if (!written) {
    // A single byte's cell may hold only its neighbour.
    if (n > 1 && FirstTime("uninitialised", place)) {
      Report(cudaErrorLaunchFailure, "read of uninitialised %s memory %p by %s",
             here.shared ? "shared" : "global", static_cast<const void*>(p),
             WhereInKernel().c_str());
    }
    return;
  }
  if (cell->write.in_flight && FirstTime("in flight", place)) {
    Report(cudaErrorLaunchFailure,
           "read of shared memory %p whose asynchronous copy (cp.async by "
           "thread %u) was not waited for, by %s",
           static_cast<const void*>(p), cell->write.thread,
           WhereInKernel().c_str());
  }
}

void Remember(Cell* cell, const Access& now, bool write, bool fresh_write,
              bool fresh_read) {
  Access& old = write ? cell->write : cell->read;
  const bool same_interval = old.barriers == now.barriers &&
                             old.warp_syncs == now.warp_syncs &&
                             old.block == now.block && old.owner == now.owner;
  Access next = now;
  if (write) {
    if (!fresh_write && same_interval && old.thread == now.thread) {
      next.bytes |= old.bytes;
    }
  } else if (!fresh_read && same_interval) {
    next.several = old.several || old.thread != now.thread;
  }
  old = next;
}

__attribute__((hot)) void Check(const char* p, size_t n, AccessKind kind,
                                const void* place, bool in_flight) {
  const bool writing =
      kind == AccessKind::kWrite || kind == AccessKind::kAtomic;
  const bool atomic =
      kind == AccessKind::kAtomicRead || kind == AccessKind::kAtomic;
  if (IsOwnMemory(p, writing)) return;
  bool shared = false;
  Cell* cell = FindCell(p, n, writing, &shared);
  if (cell == nullptr) return;
  CheckAlignment(p, n);
  const Here here{shared, static_cast<uint16_t>(g_thread->linear)};
  const uint32_t owner = shared ? S().block_run : S().operation;
  Access now{
      owner,       S().block, S().barriers, S().warp_syncs[here.thread / 32],
      here.thread, 3,         atomic,       0,
      in_flight};
  if (n == 1) now.bytes = reinterpret_cast<uintptr_t>(p) & 1 ? 2 : 1;
  for (size_t i = 0; i < (n + 1) / kGranule; ++i, ++cell) {
    const char* at = p + i * kGranule;
    const Access& w = cell->write;
    Access r = cell->read;
    // What another block left in shared memory does not count.
    const bool written = shared ? w.owner == owner : w.owner != 0;
    const bool was_read = shared ? r.owner == owner : r.owner != 0;
    if (!writing || atomic) CheckRead(cell, at, here, written, n, place);
    if (written && (w.bytes & now.bytes) && !(atomic && w.atomic) &&
        !IsOrdered(w, here.thread, shared)) {
      ReportRace(writing ? "write after write" : "read after write", at, w,
                 here, writing, /*other_wrote=*/true, place);
    }
    if (writing && was_read && (r.bytes & now.bytes) && !(atomic && r.atomic)) {
      // Of several readers one at least is another thread.
      if (r.several && r.thread == here.thread) r.thread ^= 1;
      if (!IsOrdered(r, here.thread, shared)) {
        ReportRace("write after read", at, r, here, true, false, place);
      }
    }
    Remember(cell, now, writing, !written, !was_read);
  }
}

}  // namespace

bool Checking() { return g_checking; }
void EnableChecking() { g_checking = true; }

void CheckAccess(const char* address, size_t bytes, AccessKind kind) {
  if (g_thread == nullptr) return;
  Check(address, bytes, kind, __builtin_return_address(0), false);
  MaybePreempt();
}

void NoteAtomic(const void* address, size_t bytes) {
  if (!g_checking) return;
  Check(static_cast<const char*>(address), bytes, AccessKind::kAtomic,
        __builtin_return_address(0), false);
  MaybePreempt();
}

void NoteRead(const void* address, size_t bytes) {
  if (!g_checking) return;
  const char* p = static_cast<const char*>(address);
  for (size_t i = 0; i + kGranule <= bytes; i += kGranule) {
    Check(p + i, kGranule, AccessKind::kRead, __builtin_return_address(0),
          false);
  }
}

void ShadowBeginKernel(uint32_t operation) {
  Init();
  S().operation = operation;
  S().reported.clear();
}

void ShadowBeginBlock() {
  const uint3& b = g_grid.block;
  const dim3& g = g_grid.grid_dim;
  ++S().block_run;
  S().block = b.x + g.x * (b.y + g.y * b.z);
  S().barriers = 0;
  std::memset(S().warp_syncs, 0, sizeof(S().warp_syncs));
}

void ShadowBarrier() {
  ++S().barriers;
  std::memset(S().warp_syncs, 0, sizeof(S().warp_syncs));
}

void ShadowSyncWarp(uint32_t warp) { ++S().warp_syncs[warp]; }

void ShadowAsyncStart(const void* shared, size_t bytes) {
  const char* p = static_cast<const char*>(shared);
  for (size_t i = 0; i < bytes; i += kGranule) {
    Check(p + i, kGranule, AccessKind::kWrite, __builtin_return_address(0),
          true);
  }
}

void ShadowAsyncArrival(const void* shared, size_t bytes) {
  const char* p = static_cast<const char*>(shared);
  for (size_t i = 0; i < bytes; i += kGranule) {
    Check(p + i, kGranule, AccessKind::kWrite, __builtin_return_address(0),
          false);
  }
}

void ShadowForget(const void* device, size_t bytes) {
  std::memset(static_cast<void*>(GlobalCell(device)), 0,
              (bytes + 1) / kGranule * sizeof(Cell));
}

void ShadowRange(const void* device, size_t bytes, bool write,
                 uint32_t operation) {
  if (!g_checking || !IsDevice(device) || bytes == 0) return;
  Cell* cell = GlobalCell(device);
  bool said = false;
  const Access now{operation, kNoBlock, 0, 0, 0, 3, 0, 0, 0};
  for (size_t i = 0; i < (bytes + 1) / kGranule; ++i, ++cell) {
    const Access& w = cell->write;
    const Access& r = cell->read;
    const Access* other = nullptr;
    if (w.owner != 0 && !HappensBefore(w.owner, operation)) {
      other = &w;
    } else if (write && r.owner != 0 && !HappensBefore(r.owner, operation)) {
      other = &r;
    }
    if (!said && other != nullptr) {
      said = true;
      Report(cudaErrorLaunchFailure,
             "race between operations: #%u (%s) %s device memory that #%u (%s) "
             "%s, and nothing orders the two",
             operation, OperationName(operation), write ? "writes" : "reads",
             other->owner, OperationName(other->owner),
             other == &w ? "wrote" : "read");
    } else if (!said && !write && w.owner == 0) {
      said = true;
      Report(cudaErrorLaunchFailure,
             "operation #%u (%s) reads uninitialised device memory at byte "
             "%zu of its %zu",
             operation, OperationName(operation), i * kGranule, bytes);
    }
    (write ? cell->write : cell->read) = now;
  }
}

}  // namespace cuda_emu
