// The C++ client of octet.v1.Training, over one channel. Blocking calls;
// thread- safe. proto/training.proto says what each does. Errors as in
// client.h.
#ifndef OCTET_CLIENT_TRAINING_CLIENT_H_
#define OCTET_CLIENT_TRAINING_CLIENT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grpcpp/channel.h"
#include "proto/training.grpc.pb.h"

namespace octet {

class TrainingClient {
 public:
  // `target` is HOST:PORT. Does not connect yet.
  explicit TrainingClient(const std::string& target);

  absl::StatusOr<v1::Run> CreateRun(const v1::CreateRunRequest& request);
  absl::StatusOr<v1::Run> GetRun(const v1::GetRunRequest& request);
  absl::StatusOr<v1::ListRunsResponse> ListRuns(
      const v1::ListRunsRequest& request);
  absl::StatusOr<v1::Run> EndRun(const v1::EndRunRequest& request);
  absl::StatusOr<v1::ForwardResponse> Forward(
      const v1::ForwardRequest& request);
  absl::StatusOr<v1::ForwardResponse> ForwardBackward(
      const v1::ForwardBackwardRequest& request);
  absl::StatusOr<v1::OptimStepResponse> OptimStep(
      const v1::OptimStepRequest& request);
  absl::StatusOr<v1::ZeroGradResponse> ZeroGrad(
      const v1::ZeroGradRequest& request);
  absl::StatusOr<v1::SaveStateResponse> SaveState(
      const v1::SaveStateRequest& request);
  absl::StatusOr<v1::LoadStateResponse> LoadState(
      const v1::LoadStateRequest& request);
  absl::StatusOr<v1::ExportWeightsResponse> ExportWeights(
      const v1::ExportWeightsRequest& request);

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Training::Stub> stub_;
};

}  // namespace octet

#endif  // OCTET_CLIENT_TRAINING_CLIENT_H_
