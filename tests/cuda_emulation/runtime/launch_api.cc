// Kernel launches and the attributes of kernels.

#include <map>
#include <memory>

#include "tests/cuda_emulation/engine/block.h"
#include "tests/cuda_emulation/engine/device_language.h"
#include "tests/cuda_emulation/engine/injection.h"
#include "tests/cuda_emulation/engine/report.h"
#include "tests/cuda_emulation/runtime/memory.h"
#include "tests/cuda_emulation/runtime/operations.h"
#include "tests/cuda_emulation/runtime/stream.h"

namespace cuda_emu {
namespace {

constexpr uint64_t kMaxBlockThreads = 1024;
constexpr unsigned kMaxBlockZ = 64;
constexpr unsigned kMaxGridX = 0x7fffffff;
constexpr unsigned kMaxGridYZ = 65535;

// Dynamic shared memory that a kernel may ask for, where it was raised.
std::map<const void*, size_t>& SharedLimits() {
  static auto& limits = *new std::map<const void*, size_t>();
  return limits;
}

size_t SharedLimit(const void* kernel) {
  const auto it = SharedLimits().find(kernel);
  return it == SharedLimits().end() ? kDefaultSharedBytes : it->second;
}

cudaError_t RefuseLaunch(const LaunchRequest& r, cudaError_t error,
                         const char* why) {
  return Refuse(error,
                "launch at %s:%u refused: %s (grid %u,%u,%u block %u,%u,%u "
                "shared %zu bytes)",
                r.where.file_name(), r.where.line(), why, r.grid.x, r.grid.y,
                r.grid.z, r.block.x, r.block.y, r.block.z, r.shared_bytes);
}

}  // namespace

cudaError_t Launch(const LaunchRequest& request) {
  if (const auto error = Injected<cudaErrorUnknown>("launch")) return error;
  ApiLock lock;
  const dim3& g = request.grid;
  const dim3& b = request.block;
  const uint64_t threads = uint64_t{b.x} * b.y * b.z;
  if (threads == 0 || threads > kMaxBlockThreads || b.z > kMaxBlockZ) {
    return RefuseLaunch(request, cudaErrorInvalidConfiguration,
                        "a block has 1 to 1024 threads, z at most 64");
  }
  if (g.x == 0 || g.y == 0 || g.z == 0 || g.x > kMaxGridX || g.y > kMaxGridYZ ||
      g.z > kMaxGridYZ) {
    return RefuseLaunch(request, cudaErrorInvalidConfiguration,
                        "the grid is empty or too large");
  }
  if (request.shared_bytes > SharedLimit(request.kernel)) {
    return RefuseLaunch(
        request, cudaErrorInvalidValue,
        "dynamic shared memory over the kernel's limit; over 48 KiB needs "
        "cudaFuncSetAttribute(cudaFuncAttributeMaxDynamicSharedMemorySize)");
  }
  if (!IsLiveStream(request.stream)) {
    return RefuseLaunch(request, cudaErrorInvalidResourceHandle,
                        "the stream is not a live one");
  }
  if (StickyError() != cudaSuccess) return Remember(StickyError());
  EnqueueSimple(request.stream, "kernel",
                [request](uint32_t id) { RunGrid(request, id); });
  return cudaSuccess;
}

void CheckPointerArgument(int index, const void* pointer, const Loc& where) {
  ApiLock lock;
  if (pointer == nullptr || IsDevice(pointer) || IsPinned(pointer, 1)) return;
  Report(cudaErrorIllegalAddress,
         "launch at %s:%u: argument %d is %p, which is host memory that the "
         "device cannot reach",
         where.file_name(), where.line(), index, pointer);
}

}  // namespace cuda_emu

using cuda_emu::Injected;

extern "C" {

cudaError_t cudaFuncSetAttribute(const void* kernel,
                                 cudaFuncAttribute attribute, int value) {
  if (const auto error = Injected<cudaErrorUnknown>(__func__)) return error;
  cuda_emu::ApiLock lock;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) {
    return cudaSuccess;  // carveouts and cluster sizes change no result
  }
  if (value < 0 || static_cast<size_t>(value) > cuda_emu::kMaxSharedBytes) {
    return cuda_emu::Refuse(cudaErrorInvalidValue,
                            "cudaFuncSetAttribute: %d bytes of shared memory, "
                            "a block can have 0 to %zu",
                            value, cuda_emu::kMaxSharedBytes);
  }
  cuda_emu::SharedLimits()[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks,
                                                          const void*,
                                                          int block_threads,
                                                          size_t shared_bytes) {
  constexpr int kThreadsPerProcessor = 2048;
  const int by_threads =
      block_threads > 0 ? kThreadsPerProcessor / block_threads : 0;
  const size_t by_shared = shared_bytes == 0
                               ? cuda_emu::kMaxSharedBytes
                               : cuda_emu::kMaxSharedBytes / shared_bytes;
  *blocks = by_threads < static_cast<int>(by_shared)
                ? by_threads
                : static_cast<int>(by_shared);
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int* blocks, const void* kernel, int block_threads, size_t shared_bytes,
    unsigned int) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      blocks, kernel, block_threads, shared_bytes);
}

}  // extern "C"
