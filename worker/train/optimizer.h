// AdamW on this rank's shard: f32 master weights and moments of the elements
// that it owns (ShardMap), gradient norm over all of them, and clipping.
//
// The global norm is sqrt of the sum, in the order of the parameters, of the
// sums of squares of their chunks, all in double: the same bits for any number
// of ranks. Clipping as torch.nn.utils.clip_grad_norm_: gradients are scaled by
// min(1, max_norm / (norm + 1e-6)).
//
// Threads: one at a time; all work on one stream.
#ifndef OCTET_WORKER_TRAIN_OPTIMIZER_H_
#define OCTET_WORKER_TRAIN_OPTIMIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/training_backend.h"
#include "proto/training.pb.h"
#include "worker/comm/communicator.h"
#include "worker/train/parameters.h"
#include "worker/train/shard_map.h"

namespace octet {

// What the optimizer keeps of every element.
enum class StateKind { kWeight, kM, kV };
inline constexpr StateKind kStateKinds[] = {StateKind::kWeight, StateKind::kM,
                                            StateKind::kV};

struct StepOutcome {
  double grad_norm = 0;    // before clipping
  std::string not_finite;  // the first parameter with such a gradient: nothing
                           // was changed; empty: the step was made
};

class Optimizer {
 public:
  // Weights are undefined until they are written (state()), moments zero. All
  // of it outlives the optimizer. RESOURCE_EXHAUSTED names the size.
  static absl::StatusOr<std::unique_ptr<Optimizer>> Create(
      Backend* backend, Communicator* communicator,
      const ParameterSet* parameters, const ShardMap* shards, Stream& stream);

  // Collective. gradients: of each owned range, or without data: zero.
  absl::StatusOr<StepOutcome> Step(const v1::AdamWConfig& config,
                                   absl::Span<const ConstTensor> gradients,
                                   int64_t step_id, Stream& stream);

  // [elements of the range] f32 of the owned range `index` (ShardMap::OwnedBy).
  Tensor state(StateKind kind, size_t index) const;
  int64_t num_steps() const { return num_steps_; }
  void set_num_steps(int64_t num_steps) { num_steps_ = num_steps; }
  int64_t size_bytes() const;

 private:
  Optimizer(Backend* backend, Communicator* communicator,
            const ParameterSet* parameters, const ShardMap* shards);
  absl::StatusOr<std::vector<double>> GatherSquares(
      absl::Span<const ConstTensor> gradients, int64_t step_id, Stream& stream);
  StepOutcome Norm(absl::Span<const double> squares) const;
  int64_t MaxChunks() const;
  absl::Status Update(const AdamWParams& params, size_t index,
                      ConstTensor gradient, Stream& stream);

  TrainingBackend* training_;
  Communicator* communicator_;
  const ParameterSet* parameters_;
  const ShardMap* shards_;
  absl::Span<const OwnedRange> owned_;
  std::vector<int64_t> offsets_;       // of each range in the state
  std::unique_ptr<Buffer> states_[3];  // by StateKind, [owned elements] f32
  std::unique_ptr<Buffer> zeros_;      // [kSquareChunk] f32
  int64_t num_steps_ = 0;
};

// OK, or INVALID_ARGUMENT naming the field.
absl::Status CheckAdamW(const v1::AdamWConfig& config);

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_OPTIMIZER_H_
