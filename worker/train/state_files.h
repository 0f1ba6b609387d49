// Saving and loading what a run needs to go on (worker/checkpoint/
// training_manifest.h): masters and moments by parameter, written by all ranks
// in parallel, each what it owns, and read by any number of ranks.
//
// Both are collective. Errors are refusals unless refusal.h says otherwise; a
// directory that cannot be written whole does not appear, and one that is
// damaged changes nothing.
#ifndef OCTET_WORKER_TRAIN_STATE_FILES_H_
#define OCTET_WORKER_TRAIN_STATE_FILES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/train/state_writer.h"
#include "worker/train/weight_trainer.h"

namespace octet {

// Bytes of all ranks' tensors. FAILED_PRECONDITION while gradients are pending.
absl::StatusOr<int64_t> SaveTrainingState(WeightTrainer& trainer,
                                          const std::string& path,
                                          const RunProgress& progress,
                                          int64_t step_id);

// Puts the state into the optimizer and the live weights. `current` is the
// run's: INVALID_ARGUMENT unless seed, scale and parameters are the state's.
absl::StatusOr<RunProgress> LoadTrainingState(WeightTrainer& trainer,
                                              const std::string& path,
                                              const RunProgress& current,
                                              int64_t step_id);

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_STATE_FILES_H_
