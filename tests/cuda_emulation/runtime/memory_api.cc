// cudaMalloc, cudaMemcpy and their relatives.

#include <cuda_runtime_api.h>

#include <cstring>
#include <memory>
#include <vector>

#include "tests/cuda_emulation/check/shadow.h"
#include "tests/cuda_emulation/engine/injection.h"
#include "tests/cuda_emulation/engine/options.h"
#include "tests/cuda_emulation/engine/report.h"
#include "tests/cuda_emulation/runtime/memory.h"
#include "tests/cuda_emulation/runtime/operations.h"
#include "tests/cuda_emulation/runtime/stream.h"

namespace cuda_emu {
namespace {

const char* Place(bool device) { return device ? "device" : "host"; }

const char* KindName(cudaMemcpyKind kind) {
  switch (kind) {
    case cudaMemcpyHostToHost:
      return "host to host";
    case cudaMemcpyHostToDevice:
      return "host to device";
    case cudaMemcpyDeviceToHost:
      return "device to host";
    case cudaMemcpyDeviceToDevice:
      return "device to device";
    default:
      return "default";
  }
}

cudaMemcpyKind KindOf(bool device_target, bool device_source) {
  if (device_target) {
    return device_source ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice;
  }
  return device_source ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost;
}

struct Copy {
  char* target;
  const char* source;
  size_t bytes;
  bool device_target;
  bool device_source;
};

void RunCopy(const Copy& copy, const char* source, uint32_t operation) {
  if (copy.device_source) {
    ShadowRange(source, copy.bytes, /*write=*/false, operation);
  }
  std::memmove(copy.target, source, copy.bytes);
  if (copy.device_target) {
    ShadowRange(copy.target, copy.bytes, /*write=*/true, operation);
  }
}

cudaError_t CheckCopy(const char* function, const Copy& copy,
                      cudaMemcpyKind kind, cudaStream_t stream) {
  if (!IsLiveStream(stream)) {
    return Refuse(cudaErrorInvalidResourceHandle,
                  "%s: the stream is not a live one", function);
  }
  const cudaMemcpyKind real = KindOf(copy.device_target, copy.device_source);
  if (kind != cudaMemcpyDefault && kind != real) {
    return Refuse(cudaErrorInvalidValue,
                  "%s: kind is %s, but the target %p is %s memory and the "
                  "source %p is %s memory",
                  function, KindName(kind), static_cast<void*>(copy.target),
                  Place(copy.device_target),
                  static_cast<const void*>(copy.source),
                  Place(copy.device_source));
  }
  if (copy.device_target && !InsideOneAllocation(copy.target, copy.bytes)) {
    return Refuse(cudaErrorInvalidValue,
                  "%s: target %p + %zu bytes is not inside one live device "
                  "allocation",
                  function, static_cast<void*>(copy.target), copy.bytes);
  }
  if (copy.device_source && !InsideOneAllocation(copy.source, copy.bytes)) {
    return Refuse(cudaErrorInvalidValue,
                  "%s: source %p + %zu bytes is not inside one live device "
                  "allocation",
                  function, static_cast<const void*>(copy.source), copy.bytes);
  }
  return cudaSuccess;
}

cudaError_t DoCopy(const char* function, void* target, const void* source,
                   size_t bytes, cudaMemcpyKind kind, cudaStream_t stream,
                   bool async) {
  ApiLock lock;
  if (bytes == 0) return cudaSuccess;
  const Copy copy{static_cast<char*>(target), static_cast<const char*>(source),
                  bytes, IsDevice(target), IsDevice(source)};
  if (cudaError_t error = CheckCopy(function, copy, kind, stream);
      error != cudaSuccess) {
    return error;
  }
  const bool late = (copy.device_target || IsPinned(target, bytes)) &&
                    (copy.device_source || IsPinned(source, bytes));
  OperationPtr operation;
  if (!copy.device_source && !late) {
    // A pageable source is staged before the call returns, as CUDA does.
    auto stage =
        std::make_shared<std::vector<char>>(copy.source, copy.source + bytes);
    operation = EnqueueSimple(
        stream, "copy from pageable host memory",
        [copy, stage](uint32_t id) { RunCopy(copy, stage->data(), id); });
    if (!copy.device_target) async = false;
  } else {
    const char* what = !copy.device_source  ? "copy from host memory"
                       : copy.device_target ? "copy between device buffers"
                                            : "copy to host memory";
    operation = EnqueueSimple(
        stream, what, [copy](uint32_t id) { RunCopy(copy, copy.source, id); });
    if (!late) async = false;  // CUDA waits before it touches pageable memory
  }
  if (!async) HostJoins(operation);
  return Remember(StickyError());
}

cudaError_t DoMemset(const char* function, void* target, int value,
                     size_t bytes, cudaStream_t stream) {
  ApiLock lock;
  if (bytes == 0) return cudaSuccess;
  if (!IsLiveStream(stream)) {
    return Refuse(cudaErrorInvalidResourceHandle,
                  "%s: the stream is not a live one", function);
  }
  if (!InsideOneAllocation(target, bytes)) {
    return Refuse(cudaErrorInvalidValue,
                  "%s: %p + %zu bytes is not inside one live device "
                  "allocation",
                  function, target, bytes);
  }
  EnqueueSimple(stream, "memset", [=](uint32_t id) {
    std::memset(target, value, bytes);
    ShadowRange(target, bytes, /*write=*/true, id);
  });
  return Remember(StickyError());
}

cudaError_t DoMalloc(const char* function, void** pointer, size_t bytes) {
  ApiLock lock;
  if (pointer == nullptr) {
    return Refuse(cudaErrorInvalidValue, "%s: null argument", function);
  }
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  *pointer = AllocateDevice(bytes);
  return Remember(*pointer != nullptr ? cudaSuccess
                                      : cudaErrorMemoryAllocation);
}

}  // namespace
}  // namespace cuda_emu

using cuda_emu::ApiLock;
using cuda_emu::Injected;
using cuda_emu::Refuse;

extern "C" {

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  if (const auto error = Injected<cudaErrorUnknown>(__func__)) return error;
  return cuda_emu::DoMalloc("cudaMalloc", pointer, bytes);
}

cudaError_t cudaFree(void* pointer) {
  ApiLock lock;
  if (pointer == nullptr) return cudaSuccess;
  cuda_emu::HostJoinsAll();  // cudaFree waits for the device
  const char* problem = nullptr;
  if (!cuda_emu::FreeDevice(pointer, &problem)) {
    return Refuse(cudaErrorInvalidValue, "cudaFree: %p %s", pointer, problem);
  }
  return cudaSuccess;
}

// Memory is there at once, though the real call gives it in stream order.
cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t) {
  return cuda_emu::DoMalloc("cudaMallocAsync", pointer, bytes);
}

cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  ApiLock lock;
  const cuda_emu::Allocation* allocation = cuda_emu::FindAllocation(pointer);
  if (allocation == nullptr || allocation->base != pointer ||
      !allocation->live) {
    return Refuse(cudaErrorInvalidValue,
                  "cudaFreeAsync: %p is not a live device allocation", pointer);
  }
  const size_t bytes = allocation->bytes;
  cuda_emu::EnqueueSimple(stream, "cudaFreeAsync", [=](uint32_t id) {
    // As a write: whoever uses it with nothing between is in a race.
    cuda_emu::ShadowRange(pointer, bytes, /*write=*/true, id);
    const char* problem = nullptr;
    if (!cuda_emu::FreeDevice(pointer, &problem)) {
      cuda_emu::Report(cudaErrorInvalidValue, "cudaFreeAsync: %p %s", pointer,
                       problem);
    }
  });
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned int) {
  if (const auto error = Injected<cudaErrorUnknown>(__func__)) return error;
  ApiLock lock;
  *pointer = bytes == 0 ? nullptr : cuda_emu::AllocatePinned(bytes);
  return cuda_emu::Remember(bytes == 0 || *pointer != nullptr
                                ? cudaSuccess
                                : cudaErrorMemoryAllocation);
}

cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  return cudaHostAlloc(pointer, bytes, 0);
}

cudaError_t cudaFreeHost(void* pointer) {
  ApiLock lock;
  if (pointer == nullptr) return cudaSuccess;
  cuda_emu::HostJoinsAll();
  if (!cuda_emu::FreePinned(pointer)) {
    return Refuse(cudaErrorInvalidValue, "cudaFreeHost: %p is not pinned",
                  pointer);
  }
  return cudaSuccess;
}

cudaError_t cudaHostRegister(void* pointer, size_t bytes, unsigned int) {
  ApiLock lock;
  if (!cuda_emu::RegisterPinned(pointer, bytes)) {
    return Refuse(cudaErrorHostMemoryAlreadyRegistered,
                  "cudaHostRegister: %p is registered already", pointer);
  }
  return cudaSuccess;
}

cudaError_t cudaHostUnregister(void* pointer) {
  ApiLock lock;
  cuda_emu::HostJoinsAll();
  if (!cuda_emu::UnregisterPinned(pointer)) {
    return Refuse(cudaErrorHostMemoryNotRegistered,
                  "cudaHostUnregister: %p is not registered", pointer);
  }
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* target, const void* source, size_t bytes,
                       cudaMemcpyKind kind) {
  return cuda_emu::DoCopy("cudaMemcpy", target, source, bytes, kind, nullptr,
                          /*async=*/false);
}

cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t stream) {
  if (const auto error = Injected<cudaErrorUnknown>(__func__)) return error;
  return cuda_emu::DoCopy("cudaMemcpyAsync", target, source, bytes, kind,
                          stream, /*async=*/true);
}

cudaError_t cudaMemset(void* target, int value, size_t bytes) {
  return cuda_emu::DoMemset("cudaMemset", target, value, bytes, nullptr);
}

cudaError_t cudaMemsetAsync(void* target, int value, size_t bytes,
                            cudaStream_t stream) {
  if (const auto error = Injected<cudaErrorUnknown>(__func__)) return error;
  return cuda_emu::DoMemset("cudaMemsetAsync", target, value, bytes, stream);
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  if (const auto error = Injected<cudaErrorUnknown>(__func__)) return error;
  ApiLock lock;
  *total_bytes = cuda_emu::GetOptions().memory_bytes;
  *free_bytes = *total_bytes - cuda_emu::LiveBytes();
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes,
                                     const void* pointer) {
  ApiLock lock;
  *attributes = {};
  void* p = const_cast<void*>(pointer);
  if (cuda_emu::IsDevice(pointer)) {
    attributes->type = cudaMemoryTypeDevice;
    attributes->devicePointer = p;
  } else if (cuda_emu::IsPinned(pointer, 1)) {
    attributes->type = cudaMemoryTypeHost;
    attributes->devicePointer = attributes->hostPointer = p;
  } else {
    attributes->type = cudaMemoryTypeUnregistered;
    attributes->device = -1;
    attributes->hostPointer = p;
  }
  return cudaSuccess;
}

}  // extern "C"
