// The device, which may go by several numbers, and error codes.

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "tests/cuda_emulation/engine/block.h"
#include "tests/cuda_emulation/engine/injection.h"
#include "tests/cuda_emulation/engine/options.h"
#include "tests/cuda_emulation/engine/report.h"
#include "tests/cuda_emulation/include/cuda_emu/control.h"
#include "tests/cuda_emulation/runtime/operations.h"

namespace {

constexpr int kMultiprocessors = 4;  // small, so that persistent kernels loop
int g_devices = 1;
int g_major = 9;
int g_minor = 0;
thread_local int t_device = 0;
constexpr int kDriverVersion = CUDART_VERSION;

struct ErrorName {
  cudaError_t error;
  const char* name;
  const char* text;
};

constexpr ErrorName kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice",
     "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle",
     "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress",
     "an illegal memory access was encountered"},
    {cudaErrorMisalignedAddress, "cudaErrorMisalignedAddress",
     "misaligned address"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure",
     "unspecified launch failure"},
};

const ErrorName* Find(cudaError_t error) {
  for (const ErrorName& entry : kErrors) {
    if (entry.error == error) return &entry;
  }
  return nullptr;
}

cudaError_t CheckDevice(const char* function, int device) {
  if (device >= 0 && device < g_devices) return cudaSuccess;
  return cuda_emu::Refuse(cudaErrorInvalidDevice, "%s: device %d of %d",
                          function, device, g_devices);
}

}  // namespace

void cuda_emu::SetDeviceCount(int count) { g_devices = count; }

void cuda_emu::SetComputeCapability(int major, int minor) {
  g_major = major;
  g_minor = minor;
}

using cuda_emu::Injected;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  if (const auto error = Injected<cudaErrorUnknown>(__func__)) return error;
  *count = g_devices;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (const auto error = Injected<cudaErrorUnknown>(__func__)) return error;
  cuda_emu::ApiLock lock;
  const cudaError_t error = CheckDevice("cudaSetDevice", device);
  if (error == cudaSuccess) t_device = device;
  return error;
}

cudaError_t cudaGetDevice(int* device) {
  if (const auto error = Injected<cudaErrorUnknown>(__func__)) return error;
  *device = t_device;
  return cudaSuccess;
}

cudaError_t cudaSetDeviceFlags(unsigned int) { return cudaSuccess; }

cudaError_t cudaDeviceReset() {
  cuda_emu::ApiLock lock;
  cuda_emu::HostJoinsAll();
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = kDriverVersion;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute,
                                   int device) {
  if (const auto error = Injected<cudaErrorUnknown>(__func__)) return error;
  cuda_emu::ApiLock lock;
  if (cudaError_t error = CheckDevice("cudaDeviceGetAttribute", device);
      error != cudaSuccess) {
    return error;
  }
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = kMultiprocessors;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = g_major;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = g_minor;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = cuda_emu::kDefaultSharedBytes;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = cuda_emu::kMaxSharedBytes;
      return cudaSuccess;
    case cudaDevAttrWarpSize:
      *value = 32;
      return cudaSuccess;
    case cudaDevAttrMaxThreadsPerBlock:
      *value = 1024;
      return cudaSuccess;
    case cudaDevAttrMemoryPoolsSupported:
      *value = 1;
      return cudaSuccess;
    default:
      return cuda_emu::Refuse(cudaErrorInvalidValue,
                              "cudaDeviceGetAttribute: the emulation does not "
                              "know attribute %d",
                              static_cast<int>(attribute));
  }
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (const auto error = Injected<cudaErrorUnknown>(__func__)) return error;
  cuda_emu::ApiLock lock;
  if (cudaError_t error = CheckDevice("cudaGetDeviceProperties", device);
      error != cudaSuccess) {
    return error;
  }
  *properties = {};
  std::snprintf(properties->name, sizeof(properties->name), "emulated device");
  properties->totalGlobalMem = cuda_emu::GetOptions().memory_bytes;
  properties->sharedMemPerBlock = cuda_emu::kDefaultSharedBytes;
  properties->sharedMemPerBlockOptin = cuda_emu::kMaxSharedBytes;
  properties->sharedMemPerMultiprocessor = cuda_emu::kMaxSharedBytes + 1024;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->multiProcessorCount = kMultiprocessors;
  properties->major = g_major;
  properties->minor = g_minor;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
  cuda_emu::ApiLock lock;
  std::snprintf(text, static_cast<size_t>(length), "0000:00:00.0");
  return CheckDevice("cudaDeviceGetPCIBusId", device);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  cuda_emu::ApiLock lock;
  return cuda_emu::TakeLastError(/*clear=*/true);
}

cudaError_t cudaPeekAtLastError() {
  cuda_emu::ApiLock lock;
  return cuda_emu::TakeLastError(/*clear=*/false);
}

const char* cudaGetErrorName(cudaError_t error) {
  const ErrorName* entry = Find(error);
  return entry != nullptr ? entry->name : "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  const ErrorName* entry = Find(error);
  return entry != nullptr ? entry->text : "unrecognized error code";
}

}  // extern "C"
