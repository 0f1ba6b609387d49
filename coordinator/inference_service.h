// octet.v1.Inference: validates, hands over to the step loop, streams.
// Thread-safe; all work of a step happens elsewhere.
#ifndef OCTET_COORDINATOR_INFERENCE_SERVICE_H_
#define OCTET_COORDINATOR_INFERENCE_SERVICE_H_

#include "coordinator/step_loop.h"
#include "grpcpp/grpcpp.h"
#include "proto/inference.grpc.pb.h"
#include "text/tokenizer.h"

namespace octet {

class InferenceService final : public v1::Inference::CallbackService {
 public:
  // Both must outlive all calls.
  InferenceService(StepLoop& loop, const Tokenizer& tokenizer)
      : loop_(loop), tokenizer_(tokenizer) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context,
      const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context,
                                  const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(
      grpc::CallbackServerContext* context,
      const v1::DetokenizeRequest* request,
      v1::DetokenizeResponse* response) override;

 private:
  absl::StatusOr<RequestKey> StartGenerate(
      const grpc::CallbackServerContext& context,
      const v1::GenerateRequest& request,
      const std::shared_ptr<GenerateQueue>& queue);

  StepLoop& loop_;
  const Tokenizer& tokenizer_;
};

}  // namespace octet

#endif  // OCTET_COORDINATOR_INFERENCE_SERVICE_H_
