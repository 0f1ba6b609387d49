// One training run on one rank, from CreateRun to its end: the calls of the
// Training service (proto/training.proto), as every rank of the group runs
// them.
//
// Every rank makes the same calls with the same messages. Run ids and sequence
// numbers are the coordinator's to check. Errors: refusal.h says which of them
// leave run and group as they were. Answers are the same on every rank but for
// the memory plans of Describe, which only rank 0 has whole, and seconds.
//
// Threads: one at a time, and none may use the model meanwhile. Everything
// handed to Create outlives the run. When a run goes its weights and adapters
// stay in the model.
#ifndef OCTET_WORKER_TRAIN_RUN_H_
#define OCTET_WORKER_TRAIN_RUN_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/training.pb.h"
#include "worker/model/training_pass.h"
#include "worker/train/memory_plan.h"
#include "worker/train/state_saver.h"
#include "worker/train/weight_trainer.h"

namespace octet {

struct TrainingEnvironment {
  // The base model's checkpoint directory: its tokenizer goes with an export,
  // its name into an adapter's config.
  std::string checkpoint_dir;
  RankMemory memory;
  // Of a save in the background, per rank, to leave the disk to others; 0: as
  // fast as it goes.
  int64_t save_bytes_per_second = 0;
};

class TrainingRun {
 public:
  static absl::StatusOr<std::unique_ptr<TrainingRun>> Create(
      const RankModel& model, const TrainingEnvironment& environment,
      const v1::CreateRunRequest& request, int64_t step_id);

  // State OPEN; last_seq_no, last_state_path and last_save are left to the
  // coordinator.
  v1::Run Describe() const;

  absl::StatusOr<v1::ForwardResponse> Forward(const v1::ForwardRequest& request,
                                              int64_t step_id);
  absl::StatusOr<v1::ForwardResponse> ForwardBackward(
      const v1::ForwardBackwardRequest& request, int64_t step_id);
  absl::StatusOr<v1::OptimStepResponse> OptimStep(
      const v1::OptimStepRequest& request, int64_t step_id);
  absl::StatusOr<v1::ZeroGradResponse> ZeroGrad(
      const v1::ZeroGradRequest& request);
  absl::StatusOr<v1::SaveStateResponse> SaveState(
      const v1::SaveStateRequest& request, int64_t step_id);
  absl::StatusOr<v1::LoadStateResponse> LoadState(
      const v1::LoadStateRequest& request, int64_t step_id);
  absl::StatusOr<v1::ExportWeightsResponse> ExportWeights(
      const v1::ExportWeightsRequest& request, int64_t step_id);

  // Collective: a look at the save in the background, or its end, with an error
  // of it that no call has told yet (StateSaver).
  absl::Status CheckSave(int64_t step_id) { return saver_.Check(step_id); }
  absl::Status SettleSave(int64_t step_id) { return saver_.Settle(step_id); }
  // The newest SaveState that began.
  const std::optional<v1::StateSave>& last_save() const {
    return saver_.last();
  }

 private:
  TrainingRun(const RankModel& model, const TrainingEnvironment& environment,
              v1::CreateRunRequest request);
  absl::Status PlanMemoryOfGroup(const ParameterSet& parameters,
                                 const MemoryNeeds& needs, int64_t step_id);
  // Checks, and deals the slots out. `loss_scale` is not looked at.
  absl::StatusOr<TrainingBatch> CheckedBatch(
      const google::protobuf::RepeatedPtrField<v1::TrainingSlot>& slots,
      const google::protobuf::RepeatedPtrField<v1::SlotRoutes>& routes) const;

  // Without client_state.
  RunProgress Progress() const;

  const RankModel model_;
  const TrainingEnvironment environment_;
  v1::CreateRunRequest request_;  // resolved
  std::vector<v1::RankMemoryPlan> memory_;
  std::unique_ptr<WeightTrainer> trainer_;
  std::unique_ptr<TrainingPass> pass_;
  StateSaver saver_;
  int64_t run_slots_ = 0;  // of all ForwardBackwards: numbers dropout
};

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_RUN_H_
