// A stream of the CUDA backend with what its operations need beside their
// tensors: pinned memory for arguments on their way to the device, and device
// scratch.
//
// Used by one thread at a time; the device must be the current one.
#ifndef OCTET_KERNELS_CUDA_CUDA_STREAM_H_
#define OCTET_KERNELS_CUDA_CUDA_STREAM_H_

#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cuda/cuda_memory.h"

namespace octet::cuda {

class CudaStream : public Stream {
 public:
  static absl::StatusOr<std::unique_ptr<CudaStream>> Create();
  // Waits for the work on the stream, which uses the scratch.
  ~CudaStream() override;

  cudaStream_t get() const { return stream_.get(); }

  // Copies host memory to the device in stream order, by way of pinned memory:
  // `src` is free when the call returns. Waits only when more than
  // kSlots * kSlotBytes are under way.
  absl::Status Upload(void* device_dst, const void* src, size_t num_bytes);
  // Copies in stream order; as cudaMemcpyAsync, it returns at once only when
  // `dst` is pinned.
  absl::Status Download(void* dst, const void* device_src, size_t num_bytes);
  absl::Status Synchronize();

  // At least num_bytes of device memory, aligned to 256 bytes, for the
  // operations put on the stream until the next call. Growing waits for the
  // device.
  absl::StatusOr<std::byte*> Scratch(size_t num_bytes);

  // A device copy of the plan of an operation that comes again and again (a
  // step's attention in every layer): uploaded only when it differs from the
  // last one. Valid until the next call.
  absl::StatusOr<const std::byte*> UploadPlan(absl::Span<const std::byte> plan);

 private:
  static constexpr int kSlots = 4;
  static constexpr size_t kSlotBytes = size_t{256} << 10;

  struct Slot {
    PinnedMemory memory;  // allocated when first used
    OwnedEvent copied;
  };

  CudaStream() = default;
  // The next slot, when the copy that used it last is over.
  absl::StatusOr<Slot*> NextSlot();

  OwnedStream stream_;
  std::array<Slot, kSlots> slots_;
  int next_slot_ = 0;
  DeviceMemory scratch_;
  DeviceMemory plan_;
  std::vector<std::byte> last_plan_;
};

// cudaSetDevice: a thread that never used CUDA has device 0 as its current one.
absl::Status SetDevice(int device);

// The stream, with its device made the current one. INVALID_ARGUMENT for
// another backend's stream.
absl::StatusOr<CudaStream*> EnterStream(Stream& stream, int device);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_CUDA_STREAM_H_
