// Owners of what the CUDA runtime hands out: device memory, pinned host memory,
// streams and events. All are movable, free on destruction, and may be empty.
#ifndef OCTET_KERNELS_CUDA_CUDA_MEMORY_H_
#define OCTET_KERNELS_CUDA_CUDA_MEMORY_H_

#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace octet::cuda {

// Memory of the current device. Freeing it waits for the device, as cudaFree
// does: not for the middle of a step.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept { *this = std::move(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;

  // Contents undefined; aligned to 256 bytes. RESOURCE_EXHAUSTED names the
  // size.
  static absl::StatusOr<DeviceMemory> Allocate(size_t num_bytes);

  // Not for the host to read.
  void* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }

 private:
  void* data_ = nullptr;
  size_t size_bytes_ = 0;
};

struct StreamDeleter {
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
struct EventDeleter {
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};
struct PinnedDeleter {
  void operator()(std::byte* memory) const { cudaFreeHost(memory); }
};
using OwnedStream =
    std::unique_ptr<std::remove_pointer_t<cudaStream_t>, StreamDeleter>;
using OwnedEvent =
    std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, EventDeleter>;
using PinnedMemory = std::unique_ptr<std::byte[], PinnedDeleter>;

// A stream that does not wait for the legacy default stream.
absl::StatusOr<OwnedStream> NewStream();
// An event without timing.
absl::StatusOr<OwnedEvent> NewEvent();
// Host memory that the device copies from and to by itself. RESOURCE_EXHAUSTED
// names the size.
absl::StatusOr<PinnedMemory> AllocatePinned(size_t num_bytes);

// Two pinned buffers by which weights travel between host and device, on a
// stream of their own: one is filled while the other is copied.
// Used by one thread at a time.
class StagingBuffers {
 public:
  static absl::StatusOr<std::unique_ptr<StagingBuffers>> Create(
      size_t buffer_bytes = size_t{4} << 20);

  size_t buffer_bytes() const { return buffer_bytes_; }
  cudaStream_t stream() const { return stream_.get(); }

  // The buffer whose turn it is; waits for the copy that used it last.
  absl::StatusOr<std::byte*> Next();
  // Starts the copy of the first bytes of that buffer.
  absl::Status Upload(void* device_dst, size_t num_bytes);
  // Fills it from the device, and waits.
  absl::Status Download(const void* device_src, size_t num_bytes);
  // Waits for all copies.
  absl::Status Finish();

 private:
  struct Slot {
    PinnedMemory memory;
    OwnedEvent copied;
  };

  StagingBuffers() = default;

  size_t buffer_bytes_ = 0;
  OwnedStream stream_;
  std::array<Slot, 2> slots_;
  int current_ = 0;
};

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_CUDA_MEMORY_H_
