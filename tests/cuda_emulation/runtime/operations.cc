#include "tests/cuda_emulation/runtime/operations.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "tests/cuda_emulation/engine/options.h"
#include "tests/cuda_emulation/engine/report.h"
#include "tests/cuda_emulation/include/cuda_emu/control.h"
#include "tests/cuda_emulation/runtime/memory.h"
#include "tests/cuda_emulation/runtime/stream.h"

namespace cuda_emu {
namespace {

struct Record {
  int stream;
  uint32_t sequence;
  const char* what;
  VectorClock clock;  // empty unless checking
};

struct Graph {
  std::vector<Record> records{{0, 0, "nothing", {}}};  // by operation id
  std::deque<OperationPtr> pending;                    // in the order made
  VectorClock host_clock;
};

Graph& G() {
  static auto& graph = *new Graph();
  return graph;
}

void MaxInto(VectorClock* clock, const VectorClock& other) {
  if (clock->size() < other.size()) clock->resize(other.size());
  for (size_t i = 0; i < other.size(); ++i) {
    (*clock)[i] = std::max((*clock)[i], other[i]);
  }
}

void DropDone() {
  auto& pending = G().pending;
  while (!pending.empty() && pending.front()->done) pending.pop_front();
}

// What the option says shall happen when work is queued.
void RunSome() {
  DropDone();
  auto& pending = G().pending;
  if (pending.empty()) return;
  switch (GetOptions().streams) {
    case StreamMode::kLazy:
      return;
    case StreamMode::kEager: {
      const std::vector<OperationPtr> now(pending.begin(), pending.end());
      for (const OperationPtr& operation : now) TryRun(operation);
      return;
    }
    case StreamMode::kRandom:
      if (!OneIn(3)) TryRun(OperationPtr(pending[Random() % pending.size()]));
  }
}

// One step of an operation whose dependencies are done.
bool Step(const OperationPtr& operation) {
  if (operation->running) {
    Report(cudaErrorLaunchFailure, "operation #%u (%s) waits for itself",
           operation->id, operation->what);
    return true;
  }
  operation->running = true;
  // After an error nothing more runs, as on a GPU; communication still must, or
  // the other ranks would wait for this one.
  const bool skip = StickyError() != cudaSuccess && !operation->communication;
  const bool finished = skip || operation->step(operation->id);
  operation->running = false;
  if (finished) {
    operation->done = true;
    operation->step = nullptr;
    operation->waits_for.clear();
  }
  return finished;
}

// Spinning ranks would starve each other on few cores. The lock is given up, so
// that another thread can abort the communicator that this one waits for.
void Pause(int* idle) {
  constexpr int kSpins = 20;
  constexpr useconds_t kSleepMicroseconds = 50;
  ApiMutex().unlock();
  if (++*idle < kSpins) {
    sched_yield();
  } else {
    usleep(kSleepMicroseconds);
  }
  ApiMutex().lock();
}

}  // namespace

std::recursive_mutex& ApiMutex() {
  static auto& mutex = *new std::recursive_mutex();
  return mutex;
}

std::vector<CUstream_st*>& Streams() {
  static auto& streams = *new std::vector<CUstream_st*>{new CUstream_st()};
  return streams;
}

CUstream_st* DefaultStream() { return Streams()[0]; }

CUstream_st* Resolve(cudaStream_t stream) {
  if (stream == nullptr || stream == cudaStreamLegacy ||
      stream == cudaStreamPerThread) {
    return DefaultStream();
  }
  return stream;
}

bool IsLiveStream(cudaStream_t stream) {
  const auto& all = Streams();
  const CUstream_st* s = Resolve(stream);
  return std::find(all.begin(), all.end(), s) != all.end() && !s->destroyed;
}

OperationPtr Enqueue(cudaStream_t stream, const char* what, StepFunction step,
                     const OperationPtr& also_after, bool communication) {
  CUstream_st* s = Resolve(stream);
  auto operation = std::make_shared<Operation>();
  operation->id = static_cast<uint32_t>(G().records.size());
  operation->stream = s->number;
  operation->sequence = ++s->operations;
  operation->what = what;
  operation->communication = communication;
  operation->step = std::move(step);
  auto& waits_for = operation->waits_for;
  if (s->last) waits_for.push_back(s->last);
  if (also_after) waits_for.push_back(also_after);
  if (s == DefaultStream()) {
    for (const CUstream_st* other : Streams()) {
      if (other != s && !other->destroyed && other->blocking && other->last) {
        waits_for.push_back(other->last);
      }
    }
  } else if (s->blocking && DefaultStream()->last) {
    waits_for.push_back(DefaultStream()->last);
  }
  VectorClock& clock = operation->clock;
  clock = G().host_clock;
  for (const auto& earlier : waits_for) MaxInto(&clock, earlier->clock);
  const auto number = static_cast<size_t>(s->number);
  if (clock.size() <= number) clock.resize(number + 1);
  clock[number] = operation->sequence;
  G().records.push_back({operation->stream, operation->sequence, what,
                         Checking() ? clock : VectorClock()});
  std::erase_if(waits_for, [](const auto& earlier) { return earlier->done; });
  s->last = operation;
  G().pending.push_back(operation);
  RunSome();
  return operation;
}

OperationPtr EnqueueSimple(cudaStream_t stream, const char* what,
                           std::function<void(uint32_t)> work,
                           const OperationPtr& also_after) {
  return Enqueue(
      stream, what,
      [work = std::move(work)](uint32_t id) {
        work(id);
        return true;
      },
      also_after);
}

bool TryRun(const OperationPtr& target) {
  if (target->done) return true;
  DeviceAccess access;  // opened once for a whole chain of operations
  std::vector<OperationPtr> stack{target};
  while (!stack.empty()) {
    const OperationPtr operation = stack.back();
    if (operation->done) {
      stack.pop_back();
      continue;
    }
    const size_t first = stack.size();
    for (const auto& earlier : operation->waits_for) {
      if (!earlier->done) stack.push_back(earlier);
    }
    if (stack.size() == first) {
      stack.pop_back();
      if (!Step(operation)) return false;
      continue;
    }
    if (GetOptions().streams == StreamMode::kRandom) {
      for (size_t k = stack.size(); k > first + 1; --k) {
        std::swap(stack[k - 1], stack[first + Random() % (k - first)]);
      }
    }
  }
  return true;
}

void RunToEnd(const OperationPtr& target) {
  int idle = 0;
  while (!TryRun(target)) {
    ProgressCommunication();
    Pause(&idle);
  }
}

void RunEverything() {
  DropDone();
  if (G().pending.empty()) return;
  DeviceAccess access;
  const std::vector<OperationPtr> now(G().pending.begin(), G().pending.end());
  for (const OperationPtr& operation : now) RunToEnd(operation);
  DropDone();
}

void HostJoins(const OperationPtr& operation) {
  if (!operation) return;
  RunToEnd(operation);
  MaxInto(&G().host_clock, operation->clock);
}

void HostJoinsAll() {
  RunEverything();
  for (const CUstream_st* stream : Streams()) {
    if (stream->last) MaxInto(&G().host_clock, stream->last->clock);
  }
}

bool HostPolls(const OperationPtr& operation) {
  RunSome();
  if (!operation) return true;
  if (!operation->done) {
    ProgressCommunication();
    if (OneIn(2) || !TryRun(operation)) return false;
  }
  MaxInto(&G().host_clock, operation->clock);
  return true;
}

void ProgressCommunication() {
  const std::vector<OperationPtr> now(G().pending.begin(), G().pending.end());
  for (const OperationPtr& operation : now) {
    if (operation->communication && !operation->running) TryRun(operation);
  }
}

bool HappensBefore(uint32_t earlier, uint32_t later) {
  if (earlier == later || earlier == 0) return true;
  const Record& a = G().records[earlier];
  const VectorClock& b = G().records[later].clock;
  const auto stream = static_cast<size_t>(a.stream);
  return stream < b.size() && b[stream] >= a.sequence;
}

const char* OperationName(uint32_t id) {
  return id < G().records.size() ? G().records[id].what : "unknown";
}

}  // namespace cuda_emu
