// The table of rope.h in device memory, made when parameters come for the first
// time.
#ifndef OCTET_KERNELS_CUDA_ROPE_TABLES_H_
#define OCTET_KERNELS_CUDA_ROPE_TABLES_H_

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/cuda_memory.h"
#include "kernels/cuda/cuda_stream.h"

namespace octet::cuda {

// Used by one thread at a time.
class RopeTables {
 public:
  // Valid until a call with other parameters. Waits for the stream when the
  // table is new: once per model, not in the middle of a step.
  absl::StatusOr<const double2*> For(const RopeParams& params,
                                     CudaStream& stream);

 private:
  DeviceMemory table_;  // of these parameters
  float theta_ = 0.0f;
  int head_dim_ = 0;
};

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_ROPE_TABLES_H_
