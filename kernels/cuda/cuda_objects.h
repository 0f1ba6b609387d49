// What stands behind the seam's Event and Buffer on this backend, and the
// refusal of what it cannot take: objects of another backend, caches beyond its
// kernels' limits (INVALID_ARGUMENT, one sentence).
#ifndef OCTET_KERNELS_CUDA_CUDA_OBJECTS_H_
#define OCTET_KERNELS_CUDA_CUDA_OBJECTS_H_

#include <cstdint>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/status_macros.h"
#include "kernels/backend.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/cuda_memory.h"
#include "kernels/cuda/packed_matrix.h"

namespace octet::cuda {

class CudaEvent : public Event {
 public:
  explicit CudaEvent(OwnedEvent event) : event_(std::move(event)) {}
  cudaEvent_t get() const { return event_.get(); }

 private:
  const OwnedEvent event_;
};

class CudaBuffer : public Buffer {
 public:
  explicit CudaBuffer(DeviceMemory memory) : memory_(std::move(memory)) {}
  void* data() const override { return memory_.data(); }
  size_t size_bytes() const override { return memory_.size_bytes(); }

 private:
  const DeviceMemory memory_;
};

inline absl::StatusOr<CudaEvent*> ToCuda(Event& event) {
  auto* cuda_event = dynamic_cast<CudaEvent*>(&event);
  if (cuda_event != nullptr) return cuda_event;
  return absl::InvalidArgumentError(
      "CudaBackend: the event is another backend's, expected one from "
      "NewEvent");
}

inline absl::Status CheckMatrix(const PackedMatrix& matrix) {
  return dynamic_cast<const CudaPackedMatrix*>(&matrix)
             ? absl::OkStatus()
             : absl::InvalidArgumentError(
                   "CudaBackend: the matrix is another backend's, expected one "
                   "from NewPackedMatrix");
}

inline absl::Status CheckMatrices(
    absl::Span<const PackedMatrix* const> matrices) {
  for (const PackedMatrix* matrix : matrices) {
    OCTET_RETURN_IF_ERROR(CheckMatrix(*matrix));
  }
  return absl::OkStatus();
}

// Limits of the kernels that the seam does not have.
inline absl::Status CheckCache(absl::string_view operation,
                               const KvCacheView& cache) {
  if (cache.head_dim > kAttentionMaxHeadDim || cache.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(operation, ": head_dim is ", cache.head_dim,
                     ", expected an even number up to ", kAttentionMaxHeadDim,
                     " on the cuda backend"));
  }
  const int64_t slots = cache.num_blocks * cache.block_tokens;
  if (slots > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(
        operation, ": the cache has ", slots,
        " slots, expected at most 2147483647 on the cuda backend"));
  }
  return absl::OkStatus();
}

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_CUDA_OBJECTS_H_
