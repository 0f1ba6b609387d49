#include "worker/service/trainer.h"

#include <utility>

#include "base/status_macros.h"
#include "worker/train/refusal.h"

namespace octet {
namespace {

// Puts the answer of one call into its field of the result.
template <typename Response>
absl::Status Take(absl::StatusOr<Response> response, Response* out) {
  if (!response.ok()) return response.status();
  *out = *std::move(response);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::TrainResult> Trainer::Run(int64_t step_id,
                                             const v1::TrainPlan& call) {
  absl::StatusOr<v1::TrainResult> result = Answer(step_id, call);
  if (!result.ok() && IsRefusal(result.status())) {
    v1::TrainResult refusal;
    refusal.set_code(static_cast<int32_t>(result.status().code()));
    refusal.set_message(std::string(result.status().message()));
    result = std::move(refusal);
  }
  if (result.ok() && run_ != nullptr && run_->last_save().has_value()) {
    *result->mutable_save() = *run_->last_save();
  }
  return result;
}

absl::Status Trainer::Finish(int64_t step_id) {
  return run_ == nullptr ? absl::OkStatus() : run_->SettleSave(step_id);
}

absl::StatusOr<v1::TrainResult> Trainer::Answer(int64_t step_id,
                                                const v1::TrainPlan& call) {
  v1::TrainResult result;
  if (call.has_create_run()) {
    // The coordinator opens no second run; one that has ended makes room.
    run_.reset();
    OCTET_ASSIGN_OR_RETURN(
        run_, TrainingRun::Create(model_, environment_(), call.create_run(),
                                  step_id));
    *result.mutable_run() = run_->Describe();
    return result;
  }
  if (run_ == nullptr) {
    return absl::FailedPreconditionError(
        "run_id: this group has no run, expected CreateRun first");
  }
  absl::Status status;
  if (call.has_forward()) {
    status =
        Take(run_->Forward(call.forward(), step_id), result.mutable_forward());
  } else if (call.has_forward_backward()) {
    status = Take(run_->ForwardBackward(call.forward_backward(), step_id),
                  result.mutable_forward());
  } else if (call.has_optim_step()) {
    status = Take(run_->OptimStep(call.optim_step(), step_id),
                  result.mutable_optim_step());
  } else if (call.has_zero_grad()) {
    status = Take(run_->ZeroGrad(call.zero_grad()), result.mutable_zero_grad());
  } else if (call.has_save_state()) {
    status = Take(run_->SaveState(call.save_state(), step_id),
                  result.mutable_save_state());
  } else if (call.has_load_state()) {
    status = Take(run_->LoadState(call.load_state(), step_id),
                  result.mutable_load_state());
  } else if (call.has_export_weights()) {
    status = Take(run_->ExportWeights(call.export_weights(), step_id),
                  result.mutable_export_weights());
  } else if (call.has_check_save()) {
    status = run_->CheckSave(step_id);
  } else if (call.has_end_run()) {
    OCTET_RETURN_IF_ERROR(run_->SettleSave(step_id));
    *result.mutable_run() = run_->Describe();
    if (run_->last_save().has_value()) {
      *result.mutable_save() = *run_->last_save();
    }
    run_.reset();
  } else {
    return absl::InvalidArgumentError(
        "training call: no kind that this version knows");
  }
  OCTET_RETURN_IF_ERROR(status);
  return result;
}

}  // namespace octet
