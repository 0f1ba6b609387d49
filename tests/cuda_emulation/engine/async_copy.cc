#include "tests/cuda_emulation/engine/async_copy.h"

#include <cstring>
#include <vector>

#include "tests/cuda_emulation/check/shadow.h"
#include "tests/cuda_emulation/engine/block.h"
#include "tests/cuda_emulation/engine/fiber.h"
#include "tests/cuda_emulation/engine/options.h"
#include "tests/cuda_emulation/engine/report.h"
#include "tests/cuda_emulation/runtime/memory.h"

namespace cuda_emu {
namespace {

struct PendingCopy {
  char* shared;
  const char* global;
  uint32_t bytes;
  uint32_t source_bytes;
  uint32_t group;
  bool arrived;  // the bytes are there, but nobody may rely on it yet
};

struct ThreadCopies {
  std::vector<PendingCopy> copies;  // oldest first
  uint32_t open_group = 0;          // number of the group not yet committed
};

ThreadCopies g_copies[kMaxFibers];
bool g_any_copies = false;

void Deliver(const PendingCopy& copy) {
  std::memcpy(copy.shared, copy.global, copy.source_bytes);
  std::memset(copy.shared + copy.source_bytes, 0,
              copy.bytes - copy.source_bytes);
}

}  // namespace

void AsyncCopy(void* shared, const void* global, uint32_t bytes,
               uint32_t source_bytes, const Loc& where) {
  const char* problem = nullptr;
  if (source_bytes > bytes) {
    problem = "cp.async reads more bytes than it writes";
  } else if (reinterpret_cast<uintptr_t>(shared) % bytes != 0) {
    problem = "cp.async to a misaligned shared address";
  } else if (source_bytes != 0 &&
             reinterpret_cast<uintptr_t>(global) % bytes != 0) {
    problem = "cp.async from a misaligned global address";
  } else if (IsDevice(shared)) {
    problem = "cp.async to global memory";
  } else if (source_bytes != 0 && !IsDevice(global)) {
    problem = "cp.async from memory that is not global";
  } else if (source_bytes != 0 && !InsideOneAllocation(global, source_bytes)) {
    problem = "cp.async from outside a live device allocation";
  }
  if (problem != nullptr) {
    ReportInKernel(problem, where);
    KillKernel();
  }
  ThreadCopies& mine = g_copies[g_thread->linear];
  const bool early = GetOptions().order == Order::kRandom && OneIn(2);
  const PendingCopy copy{static_cast<char*>(shared),
                         static_cast<const char*>(global),
                         bytes,
                         source_bytes,
                         mine.open_group,
                         early};
  if (Checking()) {
    if (source_bytes != 0) NoteRead(global, source_bytes);
    ShadowAsyncStart(shared, bytes);
  }
  if (early) Deliver(copy);
  mine.copies.push_back(copy);
  g_any_copies = true;
}

void AsyncCopyCommit() { ++g_copies[g_thread->linear].open_group; }

void AsyncCopyWait(uint32_t groups_left) {
  ThreadCopies& mine = g_copies[g_thread->linear];
  auto copy = mine.copies.begin();
  // A group is done when at most groups_left newer committed ones are open.
  while (copy != mine.copies.end() &&
         copy->group + groups_left < mine.open_group) {
    if (!copy->arrived) Deliver(*copy);
    if (Checking()) ShadowAsyncArrival(copy->shared, copy->bytes);
    ++copy;
  }
  mine.copies.erase(mine.copies.begin(), copy);
}

bool HasPendingAsyncCopies(uint32_t thread) {
  return !g_copies[thread].copies.empty();
}

void DropAsyncCopies(uint32_t thread) { g_copies[thread] = ThreadCopies(); }

void DropAllAsyncCopies() {
  if (!g_any_copies) return;
  g_any_copies = false;
  for (ThreadCopies& copies : g_copies) {
    copies.copies.clear();
    copies.open_group = 0;
  }
}

}  // namespace cuda_emu
