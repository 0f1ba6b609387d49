#include "coordinator/inference_service.h"

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>

#include "base/status_macros.h"
#include "coordinator/group_failure.h"
#include "coordinator/request_validation.h"
#include "coordinator/stream_reactor.h"

namespace octet {
namespace {

uint64_t Random64() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

// A unary call that the step loop answers later.
class ScoreReactor final : public grpc::ServerUnaryReactor {
 public:
  ScoreReactor(StepLoop& loop, v1::ScoreResponse* response)
      : loop_(loop), response_(response) {}

  // `key` is known only after the loop has the request, which may already have
  // answered it.
  void Start(int64_t epoch, ScoreSpec spec) {
    const RequestKey key =
        loop_.Score(epoch, std::move(spec),
                    [this](absl::StatusOr<v1::ScoreResponse> result) {
                      Answer(std::move(result));
                    });
    absl::MutexLock lock(&mu_);
    key_ = key;
    if (cancelled_) loop_.Cancel(key);
    if (answered_) Finish(ToGrpcStatus(status_));
  }

  void OnCancel() override {
    absl::MutexLock lock(&mu_);
    cancelled_ = true;
    if (key_ > 0) loop_.Cancel(key_);
  }
  void OnDone() override { delete this; }

 private:
  void Answer(absl::StatusOr<v1::ScoreResponse> result) {
    absl::MutexLock lock(&mu_);
    status_ = result.status();
    if (result.ok()) *response_ = *std::move(result);
    answered_ = true;
    if (key_ > 0) Finish(ToGrpcStatus(status_));
  }

  StepLoop& loop_;
  v1::ScoreResponse* const response_;
  absl::Mutex mu_;
  RequestKey key_ ABSL_GUARDED_BY(mu_) = 0;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  bool answered_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
};

grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext* context,
                                    const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

}  // namespace

absl::StatusOr<RequestKey> InferenceService::StartGenerate(
    const grpc::CallbackServerContext& context,
    const v1::GenerateRequest& request,
    const std::shared_ptr<GenerateQueue>& queue) {
  OCTET_ASSIGN_OR_RETURN(const StepLoop::Group group, loop_.group());
  OCTET_ASSIGN_OR_RETURN(GenerateSpec spec,
                         ValidateGenerate(request, tokenizer_, group.model,
                                          Random64(), Random64()));
  spec.deadline = absl::FromChrono(context.deadline());
  return loop_.Generate(group.epoch, std::move(spec), queue);
}

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  const std::shared_ptr<GenerateQueue> queue = loop_.MakeQueue();
  const absl::StatusOr<RequestKey> key =
      StartGenerate(*context, *request, queue);
  std::function<void()> on_gone = [] {};
  if (key.ok()) {
    on_gone = [this, key = *key] { loop_.Cancel(key); };
  } else {
    queue->Close(key.status());
  }
  return StreamReactor<v1::GenerateResponse>::Start(queue, std::move(on_gone));
}

grpc::ServerUnaryReactor* InferenceService::Score(
    grpc::CallbackServerContext* context, const v1::ScoreRequest* request,
    v1::ScoreResponse* response) {
  const absl::StatusOr<StepLoop::Group> group = loop_.group();
  if (!group.ok()) return FinishNow(context, group.status());
  absl::StatusOr<ScoreSpec> spec =
      ValidateScore(*request, tokenizer_, group->model);
  if (!spec.ok()) return FinishNow(context, spec.status());
  spec->deadline = absl::FromChrono(context->deadline());
  auto* reactor = new ScoreReactor(loop_, response);
  reactor->Start(group->epoch, *std::move(spec));
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(
    grpc::CallbackServerContext* context, const v1::TokenizeRequest* request,
    v1::TokenizeResponse* response) {
  const absl::StatusOr<std::vector<int32_t>> ids =
      ValidateTokenize(*request, tokenizer_);
  if (!ids.ok()) return FinishNow(context, ids.status());
  for (int32_t id : *ids) {
    response->add_token_ids(id);
    const absl::StatusOr<absl::string_view> piece = tokenizer_.IdToPiece(id);
    response->add_pieces(piece.ok() ? std::string(*piece) : "");
  }
  return FinishNow(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(
    grpc::CallbackServerContext* context, const v1::DetokenizeRequest* request,
    v1::DetokenizeResponse* response) {
  const absl::StatusOr<std::string> text =
      tokenizer_.Decode(request->token_ids());
  if (text.ok()) response->set_text(*text);
  return FinishNow(context, text.status());
}

}  // namespace octet
