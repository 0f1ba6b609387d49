#include "kernels/cuda/cuda_memory.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_status.h"

namespace octet::cuda {

DeviceMemory::~DeviceMemory() { cudaFree(data_); }

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

absl::StatusOr<DeviceMemory> DeviceMemory::Allocate(size_t num_bytes) {
  DeviceMemory memory;
  if (num_bytes == 0) return memory;
  OCTET_RETURN_IF_ERROR(
      CudaStatus(cudaMalloc(&memory.data_, num_bytes),
                 absl::StrCat("cudaMalloc of ", num_bytes, " bytes")));
  memory.size_bytes_ = num_bytes;
  return memory;
}

absl::StatusOr<OwnedStream> NewStream() {
  cudaStream_t stream = nullptr;
  OCTET_RETURN_IF_ERROR(
      CudaStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                 "cudaStreamCreateWithFlags"));
  return OwnedStream(stream);
}

absl::StatusOr<OwnedEvent> NewEvent() {
  cudaEvent_t event = nullptr;
  OCTET_RETURN_IF_ERROR(
      CudaStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming),
                 "cudaEventCreateWithFlags"));
  return OwnedEvent(event);
}

absl::StatusOr<PinnedMemory> AllocatePinned(size_t num_bytes) {
  void* memory = nullptr;
  OCTET_RETURN_IF_ERROR(
      CudaStatus(cudaHostAlloc(&memory, num_bytes, cudaHostAllocDefault),
                 absl::StrCat("cudaHostAlloc of ", num_bytes, " bytes")));
  return PinnedMemory(static_cast<std::byte*>(memory));
}

absl::StatusOr<std::unique_ptr<StagingBuffers>> StagingBuffers::Create(
    size_t buffer_bytes) {
  std::unique_ptr<StagingBuffers> buffers(new StagingBuffers);
  buffers->buffer_bytes_ = buffer_bytes;
  OCTET_ASSIGN_OR_RETURN(buffers->stream_, NewStream());
  for (Slot& slot : buffers->slots_) {
    OCTET_ASSIGN_OR_RETURN(slot.memory, AllocatePinned(buffer_bytes));
    OCTET_ASSIGN_OR_RETURN(slot.copied, NewEvent());
  }
  return buffers;
}

absl::StatusOr<std::byte*> StagingBuffers::Next() {
  current_ = 1 - current_;
  // An event that was never recorded is over.
  OCTET_RETURN_IF_ERROR(
      CudaStatus(cudaEventSynchronize(slots_[current_].copied.get()),
                 "cudaEventSynchronize of a staged copy"));
  return slots_[current_].memory.get();
}

absl::Status StagingBuffers::Upload(void* device_dst, size_t num_bytes) {
  Slot& slot = slots_[current_];
  OCTET_RETURN_IF_ERROR(CudaStatus(
      cudaMemcpyAsync(device_dst, slot.memory.get(), num_bytes,
                      cudaMemcpyHostToDevice, stream_.get()),
      absl::StrCat("cudaMemcpyAsync of ", num_bytes, " bytes to the device")));
  return CudaStatus(cudaEventRecord(slot.copied.get(), stream_.get()),
                    "cudaEventRecord of a staged copy");
}

absl::Status StagingBuffers::Download(const void* device_src,
                                      size_t num_bytes) {
  OCTET_RETURN_IF_ERROR(CudaStatus(
      cudaMemcpyAsync(slots_[current_].memory.get(), device_src, num_bytes,
                      cudaMemcpyDeviceToHost, stream_.get()),
      absl::StrCat("cudaMemcpyAsync of ", num_bytes,
                   " bytes from the device")));
  return Finish();
}

absl::Status StagingBuffers::Finish() {
  return CudaStatus(cudaStreamSynchronize(stream_.get()),
                    "cudaStreamSynchronize of the staging stream");
}

}  // namespace octet::cuda
