// Device memory: one arena whose addresses are never used twice, filled with
// 0xFF (NaN in every float format) when given out, and closed to the host
// outside copies and kernels, so that a host dereference is a fault with a
// message.
#ifndef CUDA_EMU_RUNTIME_MEMORY_H_
#define CUDA_EMU_RUNTIME_MEMORY_H_

#include <cstddef>
#include <cstdint>

namespace cuda_emu {

struct Allocation {
  char* base;
  size_t bytes;
  bool live;
};

// Null when out of memory.
void* AllocateDevice(size_t bytes);
// False when `pointer` is not a live allocation's base; `*problem` says why.
bool FreeDevice(void* pointer, const char** problem);

bool IsDevice(const void* pointer);
// The allocation, live or dead, that `pointer` lies in or just after; or null.
const Allocation* FindAllocation(const void* pointer);
bool InsideOneAllocation(const void* pointer, size_t bytes);

void* AllocatePinned(size_t bytes);
bool FreePinned(void* pointer);
bool RegisterPinned(void* pointer, size_t bytes);
bool UnregisterPinned(void* pointer);
bool IsPinned(const void* pointer, size_t bytes);

char* ArenaBase();
size_t LiveBytes();

// While one of these lives, the host may touch device memory.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

}  // namespace cuda_emu

#endif  // CUDA_EMU_RUNTIME_MEMORY_H_
