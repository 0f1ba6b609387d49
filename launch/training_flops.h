// The products of a training step, counted from the shapes.
#ifndef OCTET_LAUNCH_TRAINING_FLOPS_H_
#define OCTET_LAUNCH_TRAINING_FLOPS_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "proto/training.pb.h"
#include "worker/model/config.h"

namespace octet {

// Floating-point operations of one step over all ranks, a multiply-add counts
// 2. A weight that m tokens pass through costs 2 m of each of its elements
// forward, as much for its input's gradient and, when it is trained, as much
// for its own. An expert's weights see K / E of the tokens, the head those with
// a label, the embedding and norms count nothing. Causal attention of n tokens
// costs 4 N_q D n (n + 1) / 2 of a layer forward and twice that backward.
struct TrainingFlops {
  double forward = 0;
  double backward_inputs = 0;
  double backward_weights = 0;
  double recompute = 0;  // of layers, when the run recomputes

  double total() const {
    return forward + backward_inputs + backward_weights + recompute;
  }
};

// Of `num_slots` slots of one sequence of `sequence_length` tokens each. `run`
// is a resolved request (v1::Run::config).
absl::StatusOr<TrainingFlops> CountTrainingFlops(
    const ModelConfig& config, const v1::CreateRunRequest& run,
    int64_t num_slots, int64_t sequence_length);

}  // namespace octet

#endif  // OCTET_LAUNCH_TRAINING_FLOPS_H_
