// Work on streams as a graph: an operation runs when something waits for it and
// all that it depends on has run. What is to be a happens-before (stream order,
// events, the legacy default stream, host synchronisation) is kept as vector
// clocks, for the checked build.
//
// One lock guards the whole emulation: every API entry holds an ApiLock.
#ifndef CUDA_EMU_RUNTIME_OPERATIONS_H_
#define CUDA_EMU_RUNTIME_OPERATIONS_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace cuda_emu {

std::recursive_mutex& ApiMutex();

class ApiLock {
 public:
  ApiLock() : lock_(ApiMutex()) {}

 private:
  std::lock_guard<std::recursive_mutex> lock_;
};

using VectorClock = std::vector<uint32_t>;  // by stream number

// Does one step; true when the work is finished. Only communication takes more
// than one step.
using StepFunction = std::function<bool(uint32_t operation)>;

struct Operation {
  uint32_t id;
  int stream;
  uint32_t sequence;  // in its stream, from 1
  const char* what;
  bool communication;
  std::vector<std::shared_ptr<Operation>> waits_for;
  StepFunction step;
  VectorClock clock;
  bool running = false;
  bool done = false;
};
using OperationPtr = std::shared_ptr<Operation>;

// Puts work on a stream. `also_after` is one more operation to wait for, or
// null.
OperationPtr Enqueue(cudaStream_t stream, const char* what, StepFunction step,
                     const OperationPtr& also_after = nullptr,
                     bool communication = false);
// For work that is done in one step.
OperationPtr EnqueueSimple(cudaStream_t stream, const char* what,
                           std::function<void(uint32_t)> work,
                           const OperationPtr& also_after = nullptr);

// Runs as much of `target` and what it needs as can run now; true when done.
bool TryRun(const OperationPtr& target);
// Runs until done; while communication stands still, other queued communication
// of this process goes on.
void RunToEnd(const OperationPtr& target);
void RunEverything();

// What the host calls do: wait, and be ordered after.
void HostJoins(const OperationPtr& operation);
void HostJoinsAll();
// A query: sometimes makes no progress at all, else tries.
bool HostPolls(const OperationPtr& operation);

// Lets queued communication (and only what it needs) go on. Never blocks.
void ProgressCommunication();

// Does operation `earlier` happen before `later`? For the checked build.
bool HappensBefore(uint32_t earlier, uint32_t later);
const char* OperationName(uint32_t id);

}  // namespace cuda_emu

#endif  // CUDA_EMU_RUNTIME_OPERATIONS_H_
