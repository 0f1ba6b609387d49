#include "client/training_client.h"

#include "client/call.h"

namespace octet {

TrainingClient::TrainingClient(const std::string& target)
    : channel_(NewChannel(target)), stub_(v1::Training::NewStub(channel_)) {}

absl::StatusOr<v1::Run> TrainingClient::CreateRun(
    const v1::CreateRunRequest& request) {
  return UnaryCall(*stub_, &v1::Training::Stub::CreateRun, request);
}

absl::StatusOr<v1::Run> TrainingClient::GetRun(
    const v1::GetRunRequest& request) {
  return UnaryCall(*stub_, &v1::Training::Stub::GetRun, request);
}

absl::StatusOr<v1::ListRunsResponse> TrainingClient::ListRuns(
    const v1::ListRunsRequest& request) {
  return UnaryCall(*stub_, &v1::Training::Stub::ListRuns, request);
}

absl::StatusOr<v1::Run> TrainingClient::EndRun(
    const v1::EndRunRequest& request) {
  return UnaryCall(*stub_, &v1::Training::Stub::EndRun, request);
}

absl::StatusOr<v1::ForwardResponse> TrainingClient::Forward(
    const v1::ForwardRequest& request) {
  return UnaryCall(*stub_, &v1::Training::Stub::Forward, request);
}

absl::StatusOr<v1::ForwardResponse> TrainingClient::ForwardBackward(
    const v1::ForwardBackwardRequest& request) {
  return UnaryCall(*stub_, &v1::Training::Stub::ForwardBackward, request);
}

absl::StatusOr<v1::OptimStepResponse> TrainingClient::OptimStep(
    const v1::OptimStepRequest& request) {
  return UnaryCall(*stub_, &v1::Training::Stub::OptimStep, request);
}

absl::StatusOr<v1::ZeroGradResponse> TrainingClient::ZeroGrad(
    const v1::ZeroGradRequest& request) {
  return UnaryCall(*stub_, &v1::Training::Stub::ZeroGrad, request);
}

absl::StatusOr<v1::SaveStateResponse> TrainingClient::SaveState(
    const v1::SaveStateRequest& request) {
  return UnaryCall(*stub_, &v1::Training::Stub::SaveState, request);
}

absl::StatusOr<v1::LoadStateResponse> TrainingClient::LoadState(
    const v1::LoadStateRequest& request) {
  return UnaryCall(*stub_, &v1::Training::Stub::LoadState, request);
}

absl::StatusOr<v1::ExportWeightsResponse> TrainingClient::ExportWeights(
    const v1::ExportWeightsRequest& request) {
  return UnaryCall(*stub_, &v1::Training::Stub::ExportWeights, request);
}

}  // namespace octet
