// The training calls of a rank: at most one run at a time, on the model that
// serves.
#ifndef OCTET_WORKER_SERVICE_TRAINER_H_
#define OCTET_WORKER_SERVICE_TRAINER_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "proto/worker.pb.h"
#include "worker/serve/group_loop.h"
#include "worker/train/run.h"

namespace octet {

// Threads: the group loop's.
class Trainer final : public TrainHandler {
 public:
  // What `model` points to outlives it. `environment` is asked when a run
  // begins, as memory changes.
  Trainer(const RankModel& model,
          std::function<TrainingEnvironment()> environment)
      : model_(model), environment_(std::move(environment)) {}

  absl::StatusOr<v1::TrainResult> Run(int64_t step_id,
                                      const v1::TrainPlan& call) override;
  // Waits for a save in the background.
  absl::Status Finish(int64_t step_id) override;

 private:
  absl::StatusOr<v1::TrainResult> Answer(int64_t step_id,
                                         const v1::TrainPlan& call);

  const RankModel model_;
  const std::function<TrainingEnvironment()> environment_;
  std::unique_ptr<TrainingRun> run_;
};

}  // namespace octet

#endif  // OCTET_WORKER_SERVICE_TRAINER_H_
