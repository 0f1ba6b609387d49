#include "tests/cuda_emulation/runtime/memory.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "tests/cuda_emulation/check/shadow.h"
#include "tests/cuda_emulation/engine/block.h"
#include "tests/cuda_emulation/engine/fiber.h"
#include "tests/cuda_emulation/engine/options.h"
#include "tests/cuda_emulation/include/cuda_emu/control.h"

#if CUDA_EMU_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace cuda_emu {
namespace {

constexpr size_t kAlignment = 512;  // what cudaMalloc gives at least
constexpr size_t kRedZone = 512;    // never given out, between allocations
constexpr size_t kPage = 4096;
// Memory is mapped, protected and given back in these: protecting small pages
// for every operation would take most of a test's time.
constexpr size_t kHugePage = size_t{2} << 20;
constexpr int kFreshByte = 0xFF;
constexpr int kFreedByte = 0xFE;
constexpr int kPinnedByte = 0xFD;

size_t RoundUp(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

char* g_base = nullptr;
char* g_high = nullptr;  // end of what has been given out
std::map<const char*, Allocation> g_allocations;
const Allocation* g_last_found = nullptr;
std::map<size_t, int> g_live_in_page;  // allocations by huge page of the arena
std::map<const char*, size_t> g_pinned;
size_t g_live_bytes = 0;
size_t g_peak_bytes = 0;
int g_access_depth = 0;
struct sigaction g_previous_handler;

void OnFault(int signal_number, siginfo_t* info, void*) {
  const char* p = static_cast<const char*>(info->si_addr);
  char text[800];
  int n;
  if (InKernel()) {
    const char* low = GetOwnMemory().stack_low;
    const bool overflow = p >= low - kPage && p < low;
    n = std::snprintf(text, sizeof(text), "cuda_emu: fault at %p in %s%s\n",
                      static_cast<const void*>(p), WhereInKernel().c_str(),
                      overflow ? " (too much local memory)" : "");
  } else if (IsDevice(p)) {
    n = std::snprintf(text, sizeof(text),
                      "cuda_emu: host code touched device memory at %p: use "
                      "cudaMemcpy\n",
                      static_cast<const void*>(p));
  } else {
    n = std::snprintf(text, sizeof(text),
                      "cuda_emu: segmentation fault at %p on the host\n",
                      static_cast<const void*>(p));
  }
  if (write(STDERR_FILENO, text, static_cast<size_t>(n)) < 0) _exit(139);
  sigaction(signal_number, &g_previous_handler, nullptr);
  raise(signal_number);
}

void InitArena() {
  if (g_base != nullptr) return;
  // At an address of its own, so that a device pointer is easy to tell in a
  // debugger.
  void* wanted = reinterpret_cast<void*>(0x6e0000000000);
  void* arena = mmap(wanted, GetOptions().arena_bytes, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (arena == MAP_FAILED) {
    std::perror("cuda_emu: mapping the arena (see CUDA_EMU_ARENA_GIB)");
    std::abort();
  }
  g_base = g_high = reinterpret_cast<char*>(
      RoundUp(reinterpret_cast<uintptr_t>(arena), kHugePage));
  // Where there are none it is only slower.
  madvise(g_base, GetOptions().arena_bytes - kHugePage, MADV_HUGEPAGE);
  static char alternate_stack[65536];
  stack_t stack{};
  stack.ss_sp = alternate_stack;
  stack.ss_size = sizeof(alternate_stack);
  sigaltstack(&stack, nullptr);
  struct sigaction action {};
  action.sa_sigaction = &OnFault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &g_previous_handler);
}

void SetAccess(bool open) {
  if (g_base == nullptr || g_high == g_base) return;
  if (!open && !GetOptions().protect) return;
  mprotect(g_base, RoundUp(static_cast<size_t>(g_high - g_base), kHugePage),
           open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

// Calls `use` with each huge page's number and what it has of the allocation.
template <typename Use>
void ForPages(char* base, size_t bytes, Use use) {
  for (char* at = base; at < base + bytes;) {
    const size_t page = static_cast<size_t>(at - g_base) / kHugePage;
    char* end = std::min(base + bytes, g_base + (page + 1) * kHugePage);
    use(page, at, static_cast<size_t>(end - at));
    at = end;
  }
}

// Pages without any live allocation go back to the system; elsewhere a
// tell-tale pattern stays.
void Release(char* base, size_t bytes) {
  ForPages(base, bytes, [](size_t page, char* part, size_t part_bytes) {
    if (--g_live_in_page[page] > 0) {
      std::memset(part, kFreedByte, part_bytes);
      return;
    }
    g_live_in_page.erase(page);
    madvise(g_base + page * kHugePage, kHugePage, MADV_DONTNEED);
  });
}

}  // namespace

DeviceAccess::DeviceAccess() {
  if (g_access_depth++ == 0) SetAccess(true);
}
DeviceAccess::~DeviceAccess() {
  if (--g_access_depth == 0) SetAccess(false);
}

void* AllocateDevice(size_t bytes) {
  InitArena();
  const size_t used = static_cast<size_t>(g_high - g_base);
  const size_t block = RoundUp(bytes, kAlignment);
  if (bytes > GetOptions().memory_bytes ||
      g_live_bytes + bytes > GetOptions().memory_bytes) {
    return nullptr;
  }
  if (used + block + 2 * kRedZone + 2 * kHugePage > GetOptions().arena_bytes) {
    return nullptr;
  }
  char* base = g_high + kRedZone;
  g_high = base + block + kRedZone;
  {
    const int depth = g_access_depth;
    g_access_depth = 0;  // the arena has grown: open all of it
    DeviceAccess access;
    std::memset(base, kFreshByte, bytes);
    g_access_depth += depth;
#if CUDA_EMU_ASAN
    __asan_poison_memory_region(base - kRedZone, kRedZone);
    __asan_poison_memory_region(base + bytes, block - bytes + kRedZone);
#endif
  }
  ForPages(base, bytes,
           [](size_t page, char*, size_t) { ++g_live_in_page[page]; });
  g_allocations[base] = {base, bytes, true};
  g_live_bytes += bytes;
  g_peak_bytes = std::max(g_peak_bytes, g_live_bytes);
  if (Checking()) ShadowForget(base, bytes);
  return base;
}

bool FreeDevice(void* pointer, const char** problem) {
  const auto it = g_allocations.find(static_cast<char*>(pointer));
  if (it == g_allocations.end()) {
    *problem = "was not given by cudaMalloc";
    return false;
  }
  Allocation& allocation = it->second;
  if (!allocation.live) {
    *problem = "is freed twice";
    return false;
  }
  allocation.live = false;
  g_live_bytes -= allocation.bytes;
  DeviceAccess access;
  Release(static_cast<char*>(pointer), allocation.bytes);
#if CUDA_EMU_ASAN
  __asan_poison_memory_region(pointer, allocation.bytes);
#endif
  return true;
}

bool IsDevice(const void* pointer) {
  const char* p = static_cast<const char*>(pointer);
  return g_base != nullptr && p >= g_base &&
         p < g_base + GetOptions().arena_bytes;
}

const Allocation* FindAllocation(const void* pointer) {
  const char* p = static_cast<const char*>(pointer);
  const Allocation* last = g_last_found;
  if (last != nullptr && p >= last->base && p < last->base + last->bytes) {
    return last;
  }
  auto it = g_allocations.upper_bound(p);
  if (it == g_allocations.begin()) return nullptr;
  --it;
  if (p >= it->first + RoundUp(it->second.bytes, kAlignment) + kRedZone) {
    return nullptr;
  }
  g_last_found = &it->second;
  return g_last_found;
}

bool InsideOneAllocation(const void* pointer, size_t bytes) {
  const Allocation* allocation = FindAllocation(pointer);
  return allocation != nullptr && allocation->live &&
         static_cast<const char*>(pointer) + bytes <=
             allocation->base + allocation->bytes;
}

void* AllocatePinned(size_t bytes) {
  void* p = std::aligned_alloc(kAlignment, RoundUp(bytes, kAlignment));
  if (p == nullptr) return nullptr;
  std::memset(p, kPinnedByte, bytes);
  RegisterPinned(p, bytes);
  return p;
}

bool FreePinned(void* pointer) {
  if (!UnregisterPinned(pointer)) return false;
  std::free(pointer);
  return true;
}

bool RegisterPinned(void* pointer, size_t bytes) {
  return g_pinned.emplace(static_cast<char*>(pointer), bytes).second;
}

bool UnregisterPinned(void* pointer) {
  return g_pinned.erase(static_cast<char*>(pointer)) != 0;
}

bool IsPinned(const void* pointer, size_t bytes) {
  const char* p = static_cast<const char*>(pointer);
  auto it = g_pinned.upper_bound(p);
  if (it == g_pinned.begin()) return false;
  --it;
  return p + bytes <= it->first + it->second;
}

char* ArenaBase() {
  InitArena();
  return g_base;
}

size_t LiveBytes() { return g_live_bytes; }
size_t PeakBytes() { return g_peak_bytes; }
size_t LiveAllocations() {
  return static_cast<size_t>(
      std::count_if(g_allocations.begin(), g_allocations.end(),
                    [](const auto& entry) { return entry.second.live; }));
}

}  // namespace cuda_emu
