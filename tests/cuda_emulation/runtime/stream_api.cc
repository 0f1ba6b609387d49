// Streams, events and host functions.

#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "tests/cuda_emulation/engine/injection.h"
#include "tests/cuda_emulation/engine/report.h"
#include "tests/cuda_emulation/runtime/operations.h"
#include "tests/cuda_emulation/runtime/stream.h"

namespace cuda_emu {
namespace {

// Every event ever made, and whether it is live. The objects stay, as queued
// records still write to them and a later use is to be noticed.
std::map<cudaEvent_t, bool>& Events() {
  static auto& events = *new std::map<cudaEvent_t, bool>();
  return events;
}

double NowMilliseconds() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

cudaError_t BadStream(const char* function) {
  return Refuse(cudaErrorInvalidResourceHandle,
                "%s: the stream is not a live one", function);
}

cudaError_t BadEvent(const char* function) {
  return Refuse(cudaErrorInvalidResourceHandle,
                "%s: the event is not a live one", function);
}

bool IsLiveEvent(cudaEvent_t event) {
  const auto it = Events().find(event);
  return it != Events().end() && it->second;
}

cudaError_t CreateStream(cudaStream_t* stream, unsigned int flags) {
  ApiLock lock;
  auto* made = new CUstream_st();
  made->number = static_cast<int>(Streams().size());
  made->blocking = (flags & cudaStreamNonBlocking) == 0;
  Streams().push_back(made);
  *stream = made;
  return cudaSuccess;
}

}  // namespace
}  // namespace cuda_emu

using cuda_emu::ApiLock;
using cuda_emu::BadEvent;
using cuda_emu::BadStream;
using cuda_emu::Injected;
using cuda_emu::IsLiveEvent;
using cuda_emu::IsLiveStream;
using cuda_emu::Resolve;

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cuda_emu::CreateStream(stream, cudaStreamDefault);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream,
                                      unsigned int flags) {
  if (const auto error = Injected<cudaErrorUnknown>(__func__)) return error;
  return cuda_emu::CreateStream(stream, flags);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream,
                                         unsigned int flags, int) {
  return cuda_emu::CreateStream(stream, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  ApiLock lock;
  if (!IsLiveStream(stream) || Resolve(stream)->number == 0) {
    return BadStream("cudaStreamDestroy");
  }
  // The object stays, so that its queued work can run and a later use is
  // noticed.
  stream->destroyed = true;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (const auto error = Injected<cudaErrorUnknown>(__func__)) return error;
  ApiLock lock;
  if (!IsLiveStream(stream)) return BadStream("cudaStreamSynchronize");
  cuda_emu::HostJoins(Resolve(stream)->last);
  return cuda_emu::Remember(cuda_emu::StickyError());
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  ApiLock lock;
  if (!IsLiveStream(stream)) return BadStream("cudaStreamQuery");
  if (!cuda_emu::HostPolls(Resolve(stream)->last)) return cudaErrorNotReady;
  return cuda_emu::Remember(cuda_emu::StickyError());
}

cudaError_t cudaDeviceSynchronize() {
  ApiLock lock;
  cuda_emu::HostJoinsAll();
  return cuda_emu::Remember(cuda_emu::StickyError());
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event,
                                unsigned int) {
  if (const auto error = Injected<cudaErrorUnknown>(__func__)) return error;
  ApiLock lock;
  if (!IsLiveStream(stream)) return BadStream("cudaStreamWaitEvent");
  if (!IsLiveEvent(event)) return BadEvent("cudaStreamWaitEvent");
  if (event->recorded) {
    cuda_emu::EnqueueSimple(
        stream, "wait for an event", [](uint32_t) {}, event->recorded);
  }
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int flags) {
  if (const auto error = Injected<cudaErrorUnknown>(__func__)) return error;
  ApiLock lock;
  *event = new CUevent_st();
  (*event)->timed = (flags & cudaEventDisableTiming) == 0;
  cuda_emu::Events()[*event] = true;
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  ApiLock lock;
  if (!IsLiveEvent(event)) return BadEvent("cudaEventDestroy");
  cuda_emu::Events()[event] = false;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (const auto error = Injected<cudaErrorUnknown>(__func__)) return error;
  ApiLock lock;
  if (!IsLiveEvent(event)) return BadEvent("cudaEventRecord");
  if (!IsLiveStream(stream)) return BadStream("cudaEventRecord");
  event->recorded = cuda_emu::EnqueueSimple(
      stream, "event record",
      [event](uint32_t) { event->milliseconds = cuda_emu::NowMilliseconds(); });
  return cudaSuccess;
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream,
                                     unsigned int) {
  return cudaEventRecord(event, stream);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (const auto error = Injected<cudaErrorUnknown>(__func__)) return error;
  ApiLock lock;
  if (!IsLiveEvent(event)) return BadEvent("cudaEventSynchronize");
  cuda_emu::HostJoins(event->recorded);
  return cuda_emu::Remember(cuda_emu::StickyError());
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (const auto error = Injected<cudaErrorUnknown>(__func__)) return error;
  ApiLock lock;
  if (!IsLiveEvent(event)) return BadEvent("cudaEventQuery");
  if (!cuda_emu::HostPolls(event->recorded)) return cudaErrorNotReady;
  return cuda_emu::Remember(cuda_emu::StickyError());
}

// Wall time between the two points of the emulated run: no GPU's time.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin,
                                 cudaEvent_t end) {
  ApiLock lock;
  if (!IsLiveEvent(begin) || !IsLiveEvent(end)) {
    return BadEvent("cudaEventElapsedTime");
  }
  if (!begin->timed || !end->timed || !begin->recorded || !end->recorded) {
    return cuda_emu::Refuse(cudaErrorInvalidResourceHandle,
                            "cudaEventElapsedTime: an event was not recorded, "
                            "or was made with cudaEventDisableTiming");
  }
  if (!begin->recorded->done || !end->recorded->done) {
    return cuda_emu::Remember(cudaErrorNotReady);
  }
  *milliseconds = static_cast<float>(end->milliseconds - begin->milliseconds);
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function,
                               void* data) {
  ApiLock lock;
  if (!IsLiveStream(stream)) return BadStream("cudaLaunchHostFunc");
  cuda_emu::EnqueueSimple(stream, "host function",
                          [function, data](uint32_t) { function(data); });
  return cudaSuccess;
}

}  // extern "C"
