// Zeroed memory for weights and scratch: 64-byte aligned, and in huge pages
// where it is large enough to fill some (a decode step walks through all of the
// weights; 4 KiB pages would cost a translation miss per 64 cache lines).
#ifndef OCTET_KERNELS_CPU_ALIGNED_MEMORY_H_
#define OCTET_KERNELS_CPU_ALIGNED_MEMORY_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"

namespace octet::cpu {

inline constexpr int64_t kCacheLine = 64;  // bytes

// Owns one allocation; movable. Thread-compatible.
class AlignedMemory {
 public:
  AlignedMemory() = default;
  ~AlignedMemory();
  AlignedMemory(AlignedMemory&& other) noexcept;
  AlignedMemory& operator=(AlignedMemory&& other) noexcept;

  // All bytes zero. RESOURCE_EXHAUSTED names the size asked for.
  static absl::StatusOr<AlignedMemory> Allocate(size_t num_bytes);

  void* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }

 private:
  void* data_ = nullptr;
  size_t size_bytes_ = 0;
  size_t mapped_bytes_ = 0;  // 0 when it came from the C++ heap
  void* mapping_ = nullptr;
};

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_ALIGNED_MEMORY_H_
