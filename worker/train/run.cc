#include "worker/train/run.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "kernels/training_backend.h"
#include "worker/checkpoint/hf_writer.h"
#include "worker/checkpoint/peft_adapter.h"
#include "worker/comm/group_messages.h"
#include "worker/train/export.h"
#include "worker/train/file_op.h"
#include "worker/train/refusal.h"
#include "worker/train/run_messages.h"
#include "worker/train/state_files.h"
#include "worker/train/trainable.h"

namespace octet {
namespace {

// More than any host's memory holds of activations.
constexpr int64_t kMostRankTokens = 1 << 20;

absl::StatusOr<std::unique_ptr<PeftAdapter>> OpenAdapter(
    const v1::CreateRunRequest& request) {
  if (request.lora().init_from().empty()) {
    return std::unique_ptr<PeftAdapter>();
  }
  return PeftAdapter::Open(request.lora().init_from());
}

absl::Status CheckAdapter(const PeftAdapter& adapter,
                          const ParameterSet& parameters) {
  std::vector<PeftAdapter::Expected> expected;
  for (const Parameter& parameter : parameters.parameters()) {
    expected.push_back({parameter.name, parameter.shape()});
  }
  return adapter.Check(expected);
}

double SecondsSince(absl::Time begin) {
  return absl::ToDoubleSeconds(absl::Now() - begin);
}

}  // namespace

TrainingRun::TrainingRun(const RankModel& model,
                         const TrainingEnvironment& environment,
                         v1::CreateRunRequest request)
    : model_(model),
      environment_(environment),
      request_(std::move(request)),
      saver_(request_.background_saves(), environment.save_bytes_per_second) {}

absl::StatusOr<std::unique_ptr<TrainingRun>> TrainingRun::Create(
    const RankModel& model, const TrainingEnvironment& environment,
    const v1::CreateRunRequest& request, int64_t step_id) {
  // Files may differ from rank to rank, so ranks agree on what they found.
  std::unique_ptr<PeftAdapter> adapter;
  std::optional<ParameterSet> parameters;
  v1::CreateRunRequest resolved;
  const auto resolve = [&]() -> absl::Status {
    OCTET_ASSIGN_OR_RETURN(adapter, OpenAdapter(request));
    OCTET_ASSIGN_OR_RETURN(resolved, ResolveRequest(request, adapter.get()));
    OCTET_ASSIGN_OR_RETURN(parameters,
                           ParameterSet::Create(*model.config, resolved));
    OCTET_RETURN_IF_ERROR(CheckNotQuantized(parameters->parameters(),
                                            model.weights->quantization));
    if (adapter == nullptr) return absl::OkStatus();
    return CheckAdapter(*adapter, *parameters);
  };
  OCTET_RETURN_IF_ERROR(AgreeOnStatus(*model.communicator, resolve(),
                                      FileOp("create run", step_id)));
  std::unique_ptr<TrainingRun> run(
      new TrainingRun(model, environment, std::move(resolved)));
  TrainingPassOptions options =
      ToPassOptions(run->request_, *parameters, *model.config);
  TrainingBackend* training = model.backend->training();
  options.fused_products = training != nullptr && training->fused() != nullptr;
  OCTET_RETURN_IF_ERROR(run->PlanMemoryOfGroup(
      *parameters, {options, request.background_saves()}, step_id));
  const auto make_pass = [&]() -> absl::Status {
    OCTET_ASSIGN_OR_RETURN(
        run->pass_,
        TrainingPass::Create(model.backend, model.communicator, *model.config,
                             model.placement, model.weights, options));
    return absl::OkStatus();
  };
  OCTET_RETURN_IF_ERROR(AgreeOnStatus(*model.communicator, make_pass(),
                                      FileOp("create run", step_id)));
  OCTET_ASSIGN_OR_RETURN(
      run->trainer_,
      WeightTrainer::Create(model, *std::move(parameters), run->request_,
                            adapter.get(), step_id));
  return run;
}

// Fixes max_rank_tokens and makes the plan, on all ranks alike.
absl::Status TrainingRun::PlanMemoryOfGroup(const ParameterSet& parameters,
                                            const MemoryNeeds& needs,
                                            int64_t step_id) {
  const OpInfo op = FileOp("plan memory", step_id);
  const ShardMap shards(parameters, *model_.placement);
  int64_t tokens = request_.max_rank_tokens();
  if (tokens == 0) {
    const absl::StatusOr<int64_t> fit =
        TokensThatFit(model_, parameters, shards, needs, environment_.memory,
                      kMostRankTokens);
    OCTET_RETURN_IF_ERROR(
        AgreeOnStatus(*model_.communicator, fit.status(), op));
    int64_t least = -*fit;
    OCTET_RETURN_IF_ERROR(model_.communicator->AllReduceI64(
        absl::MakeSpan(&least, 1), ReduceOp::kMax, op));
    tokens = -least;
  }
  const v1::RankMemoryPlan plan = PlanMemory(model_, parameters, shards, needs,
                                             environment_.memory, tokens);
  OCTET_RETURN_IF_ERROR(
      AgreeOnStatus(*model_.communicator, CheckFits(plan, tokens), op));
  request_.set_max_rank_tokens(tokens);
  OCTET_ASSIGN_OR_RETURN(
      const std::vector<std::string> plans,
      GatherMessages(*model_.communicator, plan.SerializeAsString(), op));
  for (const std::string& text : plans) {
    if (!memory_.emplace_back().ParseFromString(text)) {
      return absl::InternalError("a rank sent what is not a memory plan");
    }
  }
  return absl::OkStatus();
}

v1::Run TrainingRun::Describe() const {
  v1::Run run;
  run.set_run_id(request_.run_id());
  run.set_state(v1::RUN_STATE_OPEN);
  *run.mutable_config() = request_;
  run.set_optimizer_steps(trainer_->optimizer().num_steps());
  run.set_pending_slots(trainer_->pending_slots());
  run.set_trainable_parameters(trainer_->parameters().num_trainable());
  run.set_total_parameters(trainer_->parameters().num_total());
  run.mutable_memory()->Assign(memory_.begin(), memory_.end());
  return run;
}

absl::StatusOr<TrainingBatch> TrainingRun::CheckedBatch(
    const google::protobuf::RepeatedPtrField<v1::TrainingSlot>& slots,
    const google::protobuf::RepeatedPtrField<v1::SlotRoutes>& routes) const {
  OCTET_ASSIGN_OR_RETURN(TrainingBatch batch,
                         ToBatch(slots, routes, *model_.config));
  OCTET_RETURN_IF_ERROR(CheckTrainingBatch(batch, *model_.config));
  std::vector<int64_t> slot_tokens;
  for (const TrainingSlotInput& slot : batch.slots) {
    slot_tokens.push_back(slot.num_tokens());
  }
  const int num_ranks = model_.communicator->size();
  batch.rank_slots = SplitSlots(slot_tokens, num_ranks);
  for (int rank = 0; rank < num_ranks; ++rank) {
    int64_t tokens = 0;
    for (int64_t s = batch.rank_slots[rank]; s < batch.rank_slots[rank + 1];
         ++s) {
      tokens += slot_tokens[s];
    }
    if (tokens > request_.max_rank_tokens()) {
      return absl::InvalidArgumentError(
          absl::StrCat("slots give rank ", rank, " ", tokens,
                       " tokens, expected at most the run's max_rank_tokens, ",
                       request_.max_rank_tokens()));
    }
  }
  return batch;
}

absl::StatusOr<v1::ForwardResponse> TrainingRun::Forward(
    const v1::ForwardRequest& request, int64_t step_id) {
  OCTET_ASSIGN_OR_RETURN(const TrainingBatch batch,
                         CheckedBatch(request.slots(), {}));
  const absl::StatusOr<PassResult> result = pass_->Forward(step_id, batch);
  if (!result.ok()) return EndsGroup(result.status());
  return ToResponse(*result, *model_.config, request.return_logprobs());
}

absl::StatusOr<v1::ForwardResponse> TrainingRun::ForwardBackward(
    const v1::ForwardBackwardRequest& request, int64_t step_id) {
  if (!(request.loss_scale() >= 0 &&
        std::isfinite(static_cast<float>(request.loss_scale())))) {
    return absl::InvalidArgumentError(
        absl::StrCat("loss_scale is ", request.loss_scale(),
                     ", expected 0 (meaning 1) or more, and finite"));
  }
  OCTET_ASSIGN_OR_RETURN(TrainingBatch batch,
                         CheckedBatch(request.slots(), request.routes()));
  batch.loss_scale = request.loss_scale() == 0 ? 1 : request.loss_scale();
  batch.first_sink_slot = trainer_->pending_slots();
  batch.first_run_slot = run_slots_;
  const absl::Time begin = absl::Now();
  GradientSink& sink =
      trainer_->Begin({batch.first_sink_slot, batch.rank_slots});
  const absl::StatusOr<PassResult> result =
      pass_->ForwardBackward(step_id, batch, sink);
  if (!result.ok()) return EndsGroup(result.status());
  const absl::Time reduce = absl::Now();
  OCTET_RETURN_IF_ERROR(EndsGroup(trainer_->Finish(step_id)));
  run_slots_ += static_cast<int64_t>(batch.slots.size());
  v1::ForwardResponse response =
      ToResponse(*result, *model_.config, request.return_logprobs());
  response.mutable_seconds()->set_reduction(SecondsSince(reduce));
  response.mutable_seconds()->set_total(SecondsSince(begin));
  return response;
}

absl::StatusOr<v1::OptimStepResponse> TrainingRun::OptimStep(
    const v1::OptimStepRequest& request, int64_t step_id) {
  if (!request.has_adamw()) {
    return absl::InvalidArgumentError(
        "adamw is not given, expected the step's learning rate in it");
  }
  OCTET_RETURN_IF_ERROR(CheckAdamW(request.adamw()));
  const absl::Time begin = absl::Now();
  const absl::StatusOr<StepOutcome> outcome =
      trainer_->Step(request.adamw(), step_id);
  if (!outcome.ok()) return EndsGroup(outcome.status());
  v1::OptimStepResponse response;
  response.set_step(trainer_->optimizer().num_steps());
  response.set_grad_norm(outcome->grad_norm);
  response.set_skipped(!outcome->not_finite.empty());
  response.set_not_finite(outcome->not_finite);
  response.mutable_seconds()->set_optimizer(SecondsSince(begin));
  response.mutable_seconds()->set_total(SecondsSince(begin));
  return response;
}

absl::StatusOr<v1::ZeroGradResponse> TrainingRun::ZeroGrad(
    const v1::ZeroGradRequest& /*request*/) {
  trainer_->ZeroGrad();
  return v1::ZeroGradResponse();
}

RunProgress TrainingRun::Progress() const {
  RunProgress progress;
  progress.run_slots = run_slots_;
  progress.seed = request_.seed();
  if (request_.has_lora()) progress.lora_scale = LoraScale(request_.lora());
  return progress;
}

absl::StatusOr<v1::SaveStateResponse> TrainingRun::SaveState(
    const v1::SaveStateRequest& request, int64_t step_id) {
  RunProgress progress = Progress();
  progress.client_state = request.client_state();
  return saver_.Save(*trainer_, request, progress, step_id);
}

absl::StatusOr<v1::LoadStateResponse> TrainingRun::LoadState(
    const v1::LoadStateRequest& request, int64_t step_id) {
  if (request.path().empty()) {
    return absl::InvalidArgumentError(
        "path is empty, expected the directory of a saved state");
  }
  OCTET_RETURN_IF_ERROR(saver_.Settle(step_id));
  OCTET_ASSIGN_OR_RETURN(
      const RunProgress progress,
      LoadTrainingState(*trainer_, request.path(), Progress(), step_id));
  run_slots_ = progress.run_slots;
  v1::LoadStateResponse response;
  response.set_optimizer_steps(trainer_->optimizer().num_steps());
  response.set_client_state(progress.client_state);
  return response;
}

absl::StatusOr<v1::ExportWeightsResponse> TrainingRun::ExportWeights(
    const v1::ExportWeightsRequest& request, int64_t step_id) {
  if (!v1::ExportFormat_IsValid(request.format())) {
    return absl::InvalidArgumentError(
        absl::StrCat("format is ", static_cast<int>(request.format()),
                     ", expected ADAPTER or FULL"));
  }
  if (request.shard_bytes() < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("shard_bytes is ", request.shard_bytes(),
                     ", expected 0 (5 GB) or more"));
  }
  const bool lora = request_.method() == v1::TRAINING_METHOD_LORA;
  const bool adapter =
      request.format() == v1::EXPORT_FORMAT_ADAPTER ||
      (request.format() == v1::EXPORT_FORMAT_UNSPECIFIED && lora);
  if (adapter && !lora) {
    return absl::InvalidArgumentError(
        "format is ADAPTER, expected FULL of a run without LoRA");
  }
  if (saver_.Touches(request.path())) {
    OCTET_RETURN_IF_ERROR(saver_.Settle(step_id));
  }
  absl::StatusOr<ExportedFiles> exported;
  if (adapter) {
    exported = ExportAdapter(
        *trainer_, request.path(),
        ToAdapterConfig(request_.lora(), environment_.checkpoint_dir), step_id);
  } else {
    const uint64_t shard_bytes =
        request.shard_bytes() > 0 ? request.shard_bytes() : kDefaultShardBytes;
    exported = ExportModel(*trainer_, request.path(), shard_bytes,
                           LoraScale(request_.lora()),
                           environment_.checkpoint_dir, step_id);
  }
  OCTET_RETURN_IF_ERROR(exported.status());
  v1::ExportWeightsResponse response;
  response.set_num_bytes(exported->num_bytes);
  *response.mutable_files() = {exported->files.begin(), exported->files.end()};
  return response;
}

}  // namespace octet
