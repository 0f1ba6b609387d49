#include "kernels/cuda/cuda_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_status.h"

namespace octet::cuda {
namespace {

// Grows `memory` to num_bytes or half as much again as it was.
absl::Status Grow(DeviceMemory& memory, size_t num_bytes) {
  if (num_bytes <= memory.size_bytes()) return absl::OkStatus();
  const size_t grown =
      std::max(num_bytes, memory.size_bytes() + memory.size_bytes() / 2);
  OCTET_ASSIGN_OR_RETURN(memory, DeviceMemory::Allocate(grown));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaStream>> CudaStream::Create() {
  std::unique_ptr<CudaStream> stream(new CudaStream);
  OCTET_ASSIGN_OR_RETURN(stream->stream_, NewStream());
  return stream;
}

CudaStream::~CudaStream() {
  // An error was, or will be, said by the call that the caller waits for.
  if (stream_ != nullptr) cudaStreamSynchronize(stream_.get());
}

absl::StatusOr<CudaStream::Slot*> CudaStream::NextSlot() {
  Slot& slot = slots_[next_slot_];
  next_slot_ = (next_slot_ + 1) % kSlots;
  if (slot.memory == nullptr) {
    OCTET_ASSIGN_OR_RETURN(slot.copied, NewEvent());
    OCTET_ASSIGN_OR_RETURN(slot.memory, AllocatePinned(kSlotBytes));
  }
  // An event that was never recorded is over.
  OCTET_RETURN_IF_ERROR(CudaStatus(cudaEventSynchronize(slot.copied.get()),
                                   "cudaEventSynchronize of an upload"));
  return &slot;
}

absl::Status CudaStream::Upload(void* device_dst, const void* src,
                                size_t num_bytes) {
  auto* to = static_cast<std::byte*>(device_dst);
  const auto* from = static_cast<const std::byte*>(src);
  while (num_bytes > 0) {
    const size_t part = std::min(num_bytes, kSlotBytes);
    OCTET_ASSIGN_OR_RETURN(Slot * slot, NextSlot());
    std::memcpy(slot->memory.get(), from, part);
    OCTET_RETURN_IF_ERROR(CudaStatus(
        cudaMemcpyAsync(to, slot->memory.get(), part, cudaMemcpyHostToDevice,
                        get()),
        absl::StrCat("cudaMemcpyAsync of ", part, " bytes to the device")));
    OCTET_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(slot->copied.get(), get()),
                                     "cudaEventRecord of an upload"));
    to += part;
    from += part;
    num_bytes -= part;
  }
  return absl::OkStatus();
}

absl::Status CudaStream::Download(void* dst, const void* device_src,
                                  size_t num_bytes) {
  if (num_bytes == 0) return absl::OkStatus();
  return CudaStatus(
      cudaMemcpyAsync(dst, device_src, num_bytes, cudaMemcpyDeviceToHost,
                      get()),
      absl::StrCat("cudaMemcpyAsync of ", num_bytes, " bytes from the device"));
}

absl::Status CudaStream::Synchronize() {
  return CudaStatus(cudaStreamSynchronize(get()), "cudaStreamSynchronize");
}

absl::StatusOr<std::byte*> CudaStream::Scratch(size_t num_bytes) {
  OCTET_RETURN_IF_ERROR(Grow(scratch_, num_bytes));
  return static_cast<std::byte*>(scratch_.data());
}

absl::StatusOr<const std::byte*> CudaStream::UploadPlan(
    absl::Span<const std::byte> plan) {
  if (plan != absl::MakeConstSpan(last_plan_)) {
    last_plan_.clear();  // whatever happens, not the old one
    OCTET_RETURN_IF_ERROR(Grow(plan_, plan.size()));
    OCTET_RETURN_IF_ERROR(Upload(plan_.data(), plan.data(), plan.size()));
    last_plan_.assign(plan.begin(), plan.end());
  }
  return static_cast<const std::byte*>(plan_.data());
}

absl::Status SetDevice(int device) {
  return CudaStatus(cudaSetDevice(device),
                    absl::StrCat("cudaSetDevice ", device));
}

absl::StatusOr<CudaStream*> EnterStream(Stream& stream, int device) {
  auto* cuda_stream = dynamic_cast<CudaStream*>(&stream);
  if (cuda_stream == nullptr) {
    return absl::InvalidArgumentError(
        "CudaBackend: the stream is another backend's, expected one from "
        "NewStream");
  }
  OCTET_RETURN_IF_ERROR(SetDevice(device));
  return cuda_stream;
}

}  // namespace octet::cuda
