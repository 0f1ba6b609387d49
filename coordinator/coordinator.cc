#include "coordinator/coordinator.h"

#include <chrono>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "base/status_macros.h"
#include "coordinator/cluster_service.h"
#include "coordinator/event_hub.h"
#include "coordinator/grpc_worker_link.h"
#include "coordinator/inference_service.h"
#include "coordinator/step_loop.h"
#include "coordinator/training_service.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/health_check_service_interface.h"
#include "text/tokenizer.h"

namespace octet {
namespace {

constexpr char kInferenceService[] = "octet.v1.Inference";
constexpr char kTrainingService[] = "octet.v1.Training";
constexpr int kMaxMessageBytes = 64 << 20;
// How long calls that were told to end may take to do so.
constexpr std::chrono::seconds kServerGrace(2);

StepLoop::Options LoopOptions(const Coordinator::Options& options,
                              std::function<void(bool)> on_health) {
  StepLoop::Options result;
  result.engine.max_waiting_requests = options.max_waiting_requests;
  result.engine.max_running_per_rank = options.max_running_per_rank;
  result.engine.max_step_tokens = options.max_step_tokens;
  result.engine.prefix_cache = options.prefix_cache;
  result.stall_after = options.stall_after;
  result.max_queued_chunks = options.max_queued_chunks;
  result.expected_vocab_size = options.expected_vocab_size;
  result.on_health = std::move(on_health);
  return result;
}

// A peer whose host is gone is noticed within 15 s.
void AddKeepalive(grpc::ServerBuilder& builder) {
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 10000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1000);
}

absl::Status CheckOptions(const Coordinator::Options& options) {
  const auto check = [](absl::string_view name, int64_t value, int64_t low) {
    if (value >= low) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(name, " is ", value, ", expected ", low, " or more"));
  };
  OCTET_RETURN_IF_ERROR(
      check("max_waiting_requests", options.max_waiting_requests, 1));
  OCTET_RETURN_IF_ERROR(
      check("max_running_per_rank", options.max_running_per_rank, 1));
  OCTET_RETURN_IF_ERROR(check("max_step_tokens", options.max_step_tokens, 0));
  OCTET_RETURN_IF_ERROR(
      check("max_queued_chunks", options.max_queued_chunks, 1));
  return check("max_queued_events", options.max_queued_events, 1);
}

}  // namespace

class Coordinator::Impl {
 public:
  Impl(const Options& options, std::unique_ptr<Tokenizer> tokenizer)
      : tokenizer_(std::move(tokenizer)),
        events_(options.max_queued_events),
        loop_(LoopOptions(options, [this](bool up) { SetServing(up); }),
              *tokenizer_, link_, events_),
        inference_(loop_, *tokenizer_),
        cluster_(loop_, events_, options.model_name),
        training_(loop_) {
    link_.SetListener(&loop_);
  }

  absl::Status Listen(const std::string& address) {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    // Two servers on one port would share it silently.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    AddKeepalive(builder);
    builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(),
                             &port_);
    builder.RegisterService(&inference_);
    builder.RegisterService(&cluster_);
    builder.RegisterService(&training_);
    builder.RegisterService(&link_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port_ == 0) {
      return absl::UnavailableError(
          absl::StrCat("listen address '", address, "' cannot be bound"));
    }
    SetServing(false);
    loop_.Start();
    return absl::OkStatus();
  }

  int port() const { return port_; }

  void Shutdown(absl::Duration drain) {
    {
      absl::MutexLock lock(&mu_);
      if (std::exchange(shutting_down_, true)) {
        return;
      }
    }
    if (server_ != nullptr) {
      loop_.Drain(absl::Now() + drain);
      loop_.Stop();
      events_.Close(absl::UnavailableError("the coordinator is shutting down"));
      server_->Shutdown(std::chrono::system_clock::now() + kServerGrace);
    }
    done_.Notify();
  }

  void Wait() { done_.WaitForNotification(); }

 private:
  void SetServing(bool serving) {
    for (const char* service : {kInferenceService, kTrainingService}) {
      server_->GetHealthCheckService()->SetServingStatus(service, serving);
    }
  }

  const std::unique_ptr<Tokenizer> tokenizer_;
  EventHub events_;
  GrpcWorkerLink link_;
  StepLoop loop_;
  InferenceService inference_;
  ClusterService cluster_;
  TrainingService training_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  absl::Mutex mu_;
  bool shutting_down_ ABSL_GUARDED_BY(mu_) = false;
  absl::Notification done_;
};

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Start(
    Options options) {
  OCTET_RETURN_IF_ERROR(CheckOptions(options));
  std::unique_ptr<Tokenizer> tokenizer = Tokenizer::WithoutPieces();
  if (!options.tokenizer_path.empty()) {
    OCTET_ASSIGN_OR_RETURN(tokenizer, Tokenizer::Load(options.tokenizer_path));
  }
  if (options.expected_vocab_size > 0 &&
      tokenizer->vocab_size() > options.expected_vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.tokenizer_path, ": has ", tokenizer->vocab_size(),
                     " pieces, expected at most ", options.expected_vocab_size,
                     ", the model's vocab_size"));
  }
  auto impl = std::make_unique<Impl>(options, std::move(tokenizer));
  OCTET_RETURN_IF_ERROR(impl->Listen(options.listen_address));
  return std::unique_ptr<Coordinator>(new Coordinator(std::move(impl)));
}

Coordinator::Coordinator(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Coordinator::~Coordinator() { Shutdown(absl::ZeroDuration()); }

int Coordinator::port() const { return impl_->port(); }

void Coordinator::Shutdown(absl::Duration drain) { impl_->Shutdown(drain); }

void Coordinator::Wait() { impl_->Wait(); }

}  // namespace octet
