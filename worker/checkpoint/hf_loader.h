// Loads a rank's share of a Mixtral checkpoint into a backend's packed weights.
//
// Every rank calls this with its own experts. Tensors are streamed through one
// small host buffer: nothing of other ranks' experts is read, and host memory
// beyond the packed weights stays at `staging_bytes`.
#ifndef OCTET_WORKER_CHECKPOINT_HF_LOADER_H_
#define OCTET_WORKER_CHECKPOINT_HF_LOADER_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "worker/checkpoint/hf_checkpoint.h"
#include "worker/model/config.h"
#include "worker/model/quantization.h"
#include "worker/model/weights.h"

namespace octet {

struct LoadOptions {
  // Compute dtype, f32 or bf16. nullopt: the one that loses no bits of the
  // checkpoint (ExactComputeDType).
  std::optional<DType> dtype;
  // Quantised from the checkpoint's values, tensor by tensor, while they are
  // read. Compute dtype as above.
  Quantization quantization;
  // Global ids of the experts to load, rising, each in [0, E). May be empty.
  std::vector<int> expert_ids;
  // Called on the loading thread after each piece. Bytes of checkpoint data.
  std::function<void(int64_t bytes_done, int64_t bytes_total)> progress;
  // Asked after each piece; true ends the loading with CANCELLED. May be empty.
  std::function<bool()> cancelled;
  // Size of a piece; one row at least.
  int64_t staging_bytes = 4 << 20;
};

// INVALID_ARGUMENT: the checkpoint does not fit `config` (validated), or the
// options are wrong; one sentence. RESOURCE_EXHAUSTED: the backend's memory.
// UNIMPLEMENTED: the backend cannot hold quantised weights.
// On error nothing stays allocated.
absl::StatusOr<ModelWeights> LoadMixtral(const HfCheckpoint& checkpoint,
                                         const ModelConfig& config,
                                         Backend& backend,
                                         const LoadOptions& options);

// Bytes of the weights of a rank with `num_local_experts` experts per layer at
// compute dtype `dtype`, none quantised, without the padding that a backend's
// packing may add.
// The embedding counts twice: as rows to look up, and as the packed head.
int64_t WeightBytes(const ModelConfig& config, int num_local_experts,
                    DType dtype);

}  // namespace octet

#endif  // OCTET_WORKER_CHECKPOINT_HF_LOADER_H_
