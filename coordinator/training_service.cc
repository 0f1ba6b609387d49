#include "coordinator/training_service.h"

#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "coordinator/group_failure.h"

namespace octet {
namespace {

// Errors show ids, in one line.
absl::Status CheckRunId(const std::string& id) {
  for (size_t i = 0; i < id.size(); ++i) {
    if (!absl::ascii_iscntrl(static_cast<unsigned char>(id[i]))) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "run_id has the control character ", static_cast<int>(id[i]),
        " at byte ", i, ", expected printable characters"));
  }
  return absl::OkStatus();
}

// Sends a call to the group; `take` moves its answer out of the result.
template <typename Response, typename Take>
grpc::ServerUnaryReactor* Call(grpc::CallbackServerContext* context,
                               StepLoop& loop, v1::TrainPlan call,
                               Response* response, Take take) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  loop.Train(std::move(call),
             [reactor, response, take](absl::StatusOr<v1::TrainResult> result) {
               if (result.ok()) *response = std::move(*take(&*result));
               reactor->Finish(ToGrpcStatus(result.status()));
             });
  return reactor;
}

// Answers from the records of the runs, without the group.
template <typename Response, typename Look>
grpc::ServerUnaryReactor* LookUp(grpc::CallbackServerContext* context,
                                 StepLoop& loop, Response* response,
                                 Look look) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const bool posted =
      loop.LookAtTraining([reactor, response, look](const TrainingRuns& runs) {
        absl::StatusOr<Response> found = look(runs);
        if (found.ok()) *response = *std::move(found);
        reactor->Finish(ToGrpcStatus(found.status()));
      });
  if (!posted) {
    reactor->Finish(ToGrpcStatus(
        absl::UnavailableError("the coordinator is shutting down")));
  }
  return reactor;
}

}  // namespace

grpc::ServerUnaryReactor* TrainingService::GetRun(
    grpc::CallbackServerContext* context, const v1::GetRunRequest* request,
    v1::Run* response) {
  return LookUp(context, loop_, response,
                [id = request->run_id()](const TrainingRuns& runs) {
                  return runs.Get(id);
                });
}

grpc::ServerUnaryReactor* TrainingService::ListRuns(
    grpc::CallbackServerContext* context, const v1::ListRunsRequest*,
    v1::ListRunsResponse* response) {
  return LookUp(context, loop_, response, [](const TrainingRuns& runs) {
    return absl::StatusOr<v1::ListRunsResponse>(runs.List());
  });
}

grpc::ServerUnaryReactor* TrainingService::CreateRun(
    grpc::CallbackServerContext* context, const v1::CreateRunRequest* request,
    v1::Run* response) {
  const absl::Status id = CheckRunId(request->run_id());
  if (!id.ok()) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpcStatus(id));
    return reactor;
  }
  v1::TrainPlan call;
  *call.mutable_create_run() = *request;
  return Call(context, loop_, std::move(call), response,
              [](v1::TrainResult* result) { return result->mutable_run(); });
}

grpc::ServerUnaryReactor* TrainingService::EndRun(
    grpc::CallbackServerContext* context, const v1::EndRunRequest* request,
    v1::Run* response) {
  v1::TrainPlan call;
  *call.mutable_end_run() = *request;
  return Call(context, loop_, std::move(call), response,
              [](v1::TrainResult* result) { return result->mutable_run(); });
}

grpc::ServerUnaryReactor* TrainingService::Forward(
    grpc::CallbackServerContext* context, const v1::ForwardRequest* request,
    v1::ForwardResponse* response) {
  v1::TrainPlan call;
  *call.mutable_forward() = *request;
  return Call(
      context, loop_, std::move(call), response,
      [](v1::TrainResult* result) { return result->mutable_forward(); });
}

grpc::ServerUnaryReactor* TrainingService::ForwardBackward(
    grpc::CallbackServerContext* context,
    const v1::ForwardBackwardRequest* request, v1::ForwardResponse* response) {
  v1::TrainPlan call;
  *call.mutable_forward_backward() = *request;
  return Call(
      context, loop_, std::move(call), response,
      [](v1::TrainResult* result) { return result->mutable_forward(); });
}

grpc::ServerUnaryReactor* TrainingService::OptimStep(
    grpc::CallbackServerContext* context, const v1::OptimStepRequest* request,
    v1::OptimStepResponse* response) {
  v1::TrainPlan call;
  *call.mutable_optim_step() = *request;
  return Call(
      context, loop_, std::move(call), response,
      [](v1::TrainResult* result) { return result->mutable_optim_step(); });
}

grpc::ServerUnaryReactor* TrainingService::ZeroGrad(
    grpc::CallbackServerContext* context, const v1::ZeroGradRequest* request,
    v1::ZeroGradResponse* response) {
  v1::TrainPlan call;
  *call.mutable_zero_grad() = *request;
  return Call(
      context, loop_, std::move(call), response,
      [](v1::TrainResult* result) { return result->mutable_zero_grad(); });
}

grpc::ServerUnaryReactor* TrainingService::SaveState(
    grpc::CallbackServerContext* context, const v1::SaveStateRequest* request,
    v1::SaveStateResponse* response) {
  v1::TrainPlan call;
  *call.mutable_save_state() = *request;
  return Call(
      context, loop_, std::move(call), response,
      [](v1::TrainResult* result) { return result->mutable_save_state(); });
}

grpc::ServerUnaryReactor* TrainingService::LoadState(
    grpc::CallbackServerContext* context, const v1::LoadStateRequest* request,
    v1::LoadStateResponse* response) {
  v1::TrainPlan call;
  *call.mutable_load_state() = *request;
  return Call(
      context, loop_, std::move(call), response,
      [](v1::TrainResult* result) { return result->mutable_load_state(); });
}

grpc::ServerUnaryReactor* TrainingService::ExportWeights(
    grpc::CallbackServerContext* context,
    const v1::ExportWeightsRequest* request,
    v1::ExportWeightsResponse* response) {
  v1::TrainPlan call;
  *call.mutable_export_weights() = *request;
  return Call(
      context, loop_, std::move(call), response,
      [](v1::TrainResult* result) { return result->mutable_export_weights(); });
}

}  // namespace octet
