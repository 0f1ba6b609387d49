// Barriers of a block, meetings of a warp, and what they report.

#include <cstdio>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "tests/cuda_emulation/check/shadow.h"
#include "tests/cuda_emulation/engine/block.h"
#include "tests/cuda_emulation/engine/options.h"
#include "tests/cuda_emulation/engine/report.h"
#include "tests/cuda_emulation/engine/thread_state.h"

namespace cuda_emu {
namespace {

bool SamePlace(const Loc& a, const Loc& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         a.file_name() == b.file_name();
}

void CheckSameBarrier() {
  const Thread* first = nullptr;
  for (uint32_t i = 0; i < g_block.num_threads; ++i) {
    const Thread& thread = g_block.threads[i];
    if (thread.status != ThreadStatus::kAtBarrier) continue;
    if (first == nullptr) {
      first = &thread;
    } else if (!SamePlace(first->where, thread.where)) {
      Report(cudaErrorLaunchFailure,
             "divergent __syncthreads in block (%u,%u,%u): thread %u waits at "
             "%s:%u, thread %u at %s:%u",
             g_grid.block.x, g_grid.block.y, g_grid.block.z, first->linear,
             first->where.file_name(), first->where.line(), thread.linear,
             thread.where.file_name(), thread.where.line());
      return;
    }
  }
}

bool NeedsWholeWarp(WarpOp op) {
  return op == WarpOp::kMma || op == WarpOp::kLdMatrix;
}

void CheckSameMeeting(const Thread& a, const Thread& b, uint32_t mask) {
  const char* what = nullptr;
  if (a.op != b.op || a.function != b.function) {
    what = "in different operations";
  } else if (a.op != WarpOp::kSync && !SamePlace(a.where, b.where)) {
    what = "at different call sites";
  }
  if (what == nullptr) return;
  Report(cudaErrorLaunchFailure,
         "lanes of one warp meet %s with mask %08x: lane %u at %s:%u, lane %u "
         "at %s:%u",
         what, mask, a.lane, a.where.file_name(), a.where.line(), b.lane,
         b.where.file_name(), b.where.line());
}

}  // namespace

void PushReady(uint32_t thread) {
  g_block.ready[(g_block.ready_head + g_block.num_ready++) % kMaxFibers] =
      static_cast<uint16_t>(thread);
}

Thread* PopReady() {
  if (g_block.num_ready == 0) return nullptr;
  uint16_t& head = g_block.ready[g_block.ready_head % kMaxFibers];
  if (GetOptions().order == Order::kRandom) {
    const auto k = static_cast<uint32_t>(Random() % g_block.num_ready);
    std::swap(head, g_block.ready[(g_block.ready_head + k) % kMaxFibers]);
  }
  Thread* thread = &g_block.threads[head];
  ++g_block.ready_head;
  --g_block.num_ready;
  return thread;
}

void ReleaseBarrier() {
  CheckSameBarrier();
  int count = 0;
  int live = 0;
  const uint32_t n = g_block.num_threads;
  const bool reverse = GetOptions().order == Order::kReverse;
  for (uint32_t k = 0; k < n; ++k) {
    Thread& thread = g_block.threads[reverse ? n - 1 - k : k];
    if (thread.status != ThreadStatus::kAtBarrier) continue;
    ++live;
    count += thread.predicate != 0;
    thread.status = ThreadStatus::kReady;
    PushReady(thread.linear);
  }
  g_block.barrier_result = g_block.barrier_kind == BarrierKind::kCount ? count
                           : g_block.barrier_kind == BarrierKind::kAnd
                               ? count == live
                               : count != 0;
  g_block.num_at_barrier = 0;
  if (Checking()) ShadowBarrier();
}

int BlockBarrier(int predicate, BarrierKind kind, const Loc& where) {
  Thread* self = static_cast<Thread*>(g_thread);
  self->where = where;
  self->predicate = predicate;
  self->status = ThreadStatus::kAtBarrier;
  g_block.barrier_kind = kind;
  if (++g_block.num_at_barrier == g_block.num_alive) ReleaseBarrier();
  WaitInThread(self);
  return g_block.barrier_result;
}

bool CompleteMeeting(uint32_t warp_index, int meeting_index,
                     const Thread* last) {
  Warp& warp = g_block.warps[warp_index];
  const Meeting meeting = warp.meetings[meeting_index];
  const uint32_t lanes = meeting.mask & warp.alive;
  if (meeting.arrived != lanes) return false;
  warp.meetings[meeting_index] = warp.meetings[--warp.num_meetings];
  Thread* threads = &g_block.threads[warp_index * 32];
  const Thread* first = nullptr;
  const void* in[32] = {};
  void* out[32] = {};
  bool same = true;
  for (uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
    const Thread& thread = threads[__builtin_ctz(rest)];
    in[thread.lane] = thread.in;
    out[thread.lane] = thread.out;
    if (first == nullptr) first = &thread;
    same = same && first->function == thread.function;
    CheckSameMeeting(*first, thread, meeting.mask);
  }
  if (first != nullptr && lanes != ~0u && NeedsWholeWarp(first->op)) {
    Report(cudaErrorLaunchFailure,
           "%s by lanes %08x only at %s:%u: the whole warp must take part",
           first->op == WarpOp::kMma ? "mma" : "ldmatrix", lanes,
           first->where.file_name(), first->where.line());
  }
  if (first != nullptr && first->function != nullptr && same) {
    first->function(lanes, in, out);
  }
  if (Checking() && first != nullptr && first->op == WarpOp::kSync) {
    ShadowSyncWarp(warp_index);
  }
  for (uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
    Thread& thread = threads[__builtin_ctz(rest)];
    if (&thread == last) continue;
    thread.status = ThreadStatus::kReady;
    PushReady(thread.linear);
  }
  return true;
}

void WarpMeet(WarpOp op, uint32_t mask, const void* in, void* out,
              WarpFunction function, const Loc& where) {
  Thread* self = static_cast<Thread*>(g_thread);
  self->where = where;
  self->op = op;
  self->mask = mask;
  self->in = in;
  self->out = out;
  self->function = function;
  if (!(mask >> self->lane & 1)) {
    Report(cudaErrorLaunchFailure,
           "lane %u is not in its own mask %08x at %s:%u, %s", self->lane, mask,
           where.file_name(), where.line(), WhereInKernel().c_str());
    KillKernel();
  }
  Warp& warp = g_block.warps[self->warp];
  int i = 0;
  while (i < warp.num_meetings && warp.meetings[i].mask != mask) ++i;
  if (i == warp.num_meetings) {
    if (i == kMaxMeetings) {
      Report(cudaErrorLaunchFailure,
             "over %d different masks wait in one warp at %s:%u", kMaxMeetings,
             where.file_name(), where.line());
      KillKernel();
    }
    warp.meetings[warp.num_meetings++] = {mask, 0};
  }
  warp.meetings[i].arrived |= 1u << self->lane;
  self->status = ThreadStatus::kAtWarpOp;
  if (CompleteMeeting(self->warp, i, self)) {
    self->status = ThreadStatus::kReady;
    return;
  }
  WaitInThread(self);
}

void ReportDeadlock() {
  using Key = std::tuple<std::string, uint32_t, bool, uint32_t>;
  std::map<Key, std::pair<uint32_t, int>> groups;  // first thread, how many
  for (uint32_t i = 0; i < g_block.num_threads; ++i) {
    const Thread& thread = g_block.threads[i];
    if (thread.status == ThreadStatus::kDone) continue;
    const bool barrier = thread.status == ThreadStatus::kAtBarrier;
    auto& group = groups[{thread.where.file_name(), thread.where.line(),
                          barrier, barrier ? 0 : thread.mask}];
    if (group.second++ == 0) group.first = i;
  }
  std::string text;
  for (const auto& [key, group] : groups) {
    const auto& [file, line, barrier, mask] = key;
    char part[512];
    std::snprintf(
        part, sizeof(part), "\n    %d thread(s), first %u, wait in %s at %s:%u",
        group.second, group.first,
        barrier ? "__syncthreads" : "a warp operation", file.c_str(), line);
    text += part;
    if (!barrier) {
      std::snprintf(part, sizeof(part), " mask %08x", mask);
      text += part;
    }
  }
  Report(cudaErrorLaunchFailure,
         "deadlock in block (%u,%u,%u): %u of %u threads can never go on%s",
         g_grid.block.x, g_grid.block.y, g_grid.block.z, g_block.num_alive,
         g_block.num_threads, text.c_str());
}

}  // namespace cuda_emu
