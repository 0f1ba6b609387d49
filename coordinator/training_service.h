// octet.v1.Training: hands calls to the step loop and answers when the group
// has. A client that goes away does not stop its call: it may ask for the
// answer again by the call's number. Thread-safe.
#ifndef OCTET_COORDINATOR_TRAINING_SERVICE_H_
#define OCTET_COORDINATOR_TRAINING_SERVICE_H_

#include "coordinator/step_loop.h"
#include "grpcpp/grpcpp.h"
#include "proto/training.grpc.pb.h"

namespace octet {

class TrainingService final : public v1::Training::CallbackService {
 public:
  // `loop` must outlive all calls.
  explicit TrainingService(StepLoop& loop) : loop_(loop) {}

  grpc::ServerUnaryReactor* CreateRun(grpc::CallbackServerContext* context,
                                      const v1::CreateRunRequest* request,
                                      v1::Run* response) override;
  grpc::ServerUnaryReactor* GetRun(grpc::CallbackServerContext* context,
                                   const v1::GetRunRequest* request,
                                   v1::Run* response) override;
  grpc::ServerUnaryReactor* ListRuns(grpc::CallbackServerContext* context,
                                     const v1::ListRunsRequest* request,
                                     v1::ListRunsResponse* response) override;
  grpc::ServerUnaryReactor* EndRun(grpc::CallbackServerContext* context,
                                   const v1::EndRunRequest* request,
                                   v1::Run* response) override;
  grpc::ServerUnaryReactor* Forward(grpc::CallbackServerContext* context,
                                    const v1::ForwardRequest* request,
                                    v1::ForwardResponse* response) override;
  grpc::ServerUnaryReactor* ForwardBackward(
      grpc::CallbackServerContext* context,
      const v1::ForwardBackwardRequest* request,
      v1::ForwardResponse* response) override;
  grpc::ServerUnaryReactor* OptimStep(grpc::CallbackServerContext* context,
                                      const v1::OptimStepRequest* request,
                                      v1::OptimStepResponse* response) override;
  grpc::ServerUnaryReactor* ZeroGrad(grpc::CallbackServerContext* context,
                                     const v1::ZeroGradRequest* request,
                                     v1::ZeroGradResponse* response) override;
  grpc::ServerUnaryReactor* SaveState(grpc::CallbackServerContext* context,
                                      const v1::SaveStateRequest* request,
                                      v1::SaveStateResponse* response) override;
  grpc::ServerUnaryReactor* LoadState(grpc::CallbackServerContext* context,
                                      const v1::LoadStateRequest* request,
                                      v1::LoadStateResponse* response) override;
  grpc::ServerUnaryReactor* ExportWeights(
      grpc::CallbackServerContext* context,
      const v1::ExportWeightsRequest* request,
      v1::ExportWeightsResponse* response) override;

 private:
  StepLoop& loop_;
};

}  // namespace octet

#endif  // OCTET_COORDINATOR_TRAINING_SERVICE_H_
