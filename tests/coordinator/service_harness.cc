#include "tests/coordinator/service_harness.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/logging.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/impl/codegen/client_unary_call.h"
#include "tests/fakes/toy_tokenizer.h"

namespace octet::test {

ServiceHarness::ServiceHarness(Coordinator::Options options)
    : tokenizer_(ToyTokenizer()) {
  model_.vocab_size = tokenizer_->vocab_size();
  options.listen_address = "127.0.0.1:0";
  options.tokenizer_path = WriteToyTokenizer(folder_.path());
  auto coordinator = Coordinator::Start(options);
  OCTET_CHECK(coordinator.ok()) << coordinator.status();
  coordinator_ = *std::move(coordinator);
  client_ = std::make_unique<Client>(target());
}

std::string ServiceHarness::target() const {
  return absl::StrCat("127.0.0.1:", coordinator_->port());
}

FakeWorkerGroup::Options ServiceHarness::GroupOptions(
    FakeWorkerGroup::Options options) const {
  options.target = target();
  options.model.vocab_size = tokenizer_->vocab_size();
  return options;
}

FakeWorkerGroup& ServiceHarness::StartGroup(FakeWorkerGroup::Options options) {
  group_ = std::make_unique<FakeWorkerGroup>(GroupOptions(options));
  OCTET_CHECK(group_->WaitWelcome()) << group_->WaitEnd().error_message();
  const int64_t epoch = group_->epoch();
  OCTET_CHECK(Eventually([&] {
    const auto topology = client_->GetTopology();
    return topology.ok() && topology->epoch() == epoch;
  }));
  return *group_;
}

void ServiceHarness::StopGroup() {
  group_.reset();
  OCTET_CHECK(Eventually([&] { return !client_->GetTopology().ok(); }));
}

GenerateOutcome ServiceHarness::Generate(const v1::GenerateRequest& request,
                                         absl::Duration timeout,
                                         const std::function<bool()>& go_on) {
  GenerateOutcome outcome;
  outcome.status = client_->Generate(
      request,
      [&](const v1::GenerateResponse& chunk) {
        outcome.chunks.push_back(chunk);
        auto& continuation = outcome.continuations[chunk.index()];
        continuation.text += chunk.text();
        continuation.ids.insert(continuation.ids.end(),
                                chunk.token_ids().begin(),
                                chunk.token_ids().end());
        continuation.logprobs.insert(continuation.logprobs.end(),
                                     chunk.logprobs().begin(),
                                     chunk.logprobs().end());
        if (chunk.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
          continuation.reason = chunk.finish_reason();
          continuation.stop_string = chunk.stop_string();
          continuation.timings = chunk.timings();
        }
        if (chunk.has_usage()) outcome.usage = chunk.usage();
        if (outcome.chunks.size() == 1) outcome.seed = chunk.seed();
        return go_on();
      },
      timeout);
  return outcome;
}

int ServiceHarness::Health(const std::string& service) const {
  // HealthCheckRequest {string service = 1}, HealthCheckResponse {enum = 1}.
  std::string bytes = "\n";
  bytes += static_cast<char>(service.size());
  bytes += service;
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer response;
  const auto channel =
      grpc::CreateChannel(target(), grpc::InsecureChannelCredentials());
  grpc::ClientContext context;
  grpc::internal::RpcMethod method("/grpc.health.v1.Health/Check",
                                   grpc::internal::RpcMethod::NORMAL_RPC);
  const grpc::Status status =
      grpc::internal::BlockingUnaryCall<grpc::ByteBuffer, grpc::ByteBuffer>(
          channel.get(), method, &context, request, &response);
  if (!status.ok()) return -1;
  grpc::Slice answer;
  OCTET_CHECK(response.DumpToSingleSlice(&answer).ok());
  return answer.size() == 2 ? answer.begin()[1] : 0;
}

bool ServiceHarness::Eventually(const std::function<bool()>& done) {
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (!done()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(2));
  }
  return true;
}

bool ServiceHarness::EventuallyIdle() {
  return Eventually([this] {
    const auto info = client_->GetInfo();
    return info.ok() && info->requests_running() == 0 &&
           info->requests_waiting() == 0 && info->kv_blocks_used() == 0;
  });
}

AsyncGenerate::AsyncGenerate(ServiceHarness& harness,
                             v1::GenerateRequest request,
                             absl::Duration timeout, int32_t cancel_after)
    : thread_([this, &harness, request, timeout, cancel_after] {
        outcome_ = harness.Generate(
            request, timeout, [&] { return ++num_chunks_ != cancel_after; });
      }) {}

AsyncGenerate::~AsyncGenerate() { Wait(); }

const GenerateOutcome& AsyncGenerate::Wait() {
  if (thread_.joinable()) thread_.join();
  return outcome_;
}

v1::GenerateRequest IdsRequest(const std::vector<int32_t>& ids,
                               int32_t max_new_tokens) {
  v1::GenerateRequest request;
  request.mutable_prompt()->mutable_token_ids()->mutable_ids()->Add(ids.begin(),
                                                                    ids.end());
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stop()->set_max_new_tokens(max_new_tokens);
  return request;
}

}  // namespace octet::test
