#include "worker/service/coordinator_link.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "base/logging.h"
#include "grpcpp/grpcpp.h"

namespace octet {
namespace {

// How long a closing stream may take.
constexpr absl::Duration kCloseTimeout = absl::Seconds(5);

// How long a coordinator may take to notice that the last group's host is gone.
constexpr absl::Duration kOldGroupTimeout = absl::Seconds(20);

// Plans carry whole prompts, results whole score tables: no size limit. A dead
// coordinator is noticed by pings, also between plans.
std::shared_ptr<grpc::Channel> NewChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  // Groups of one process have a connection each.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(),
                                   arguments);
}

absl::Status Refusal(const std::string& address, const grpc::Status& status) {
  return absl::Status(
      static_cast<absl::StatusCode>(status.error_code()),
      absl::StrCat("coordinator at ", address,
                   " refused the worker group: ", status.error_message()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<CoordinatorLink>> CoordinatorLink::Connect(
    const std::string& address, const v1::Hello& hello, absl::Duration timeout,
    const std::function<bool()>& cancelled) {
  const absl::Time deadline = absl::Now() + timeout;
  const absl::Time old_group_deadline =
      absl::Now() + std::min(timeout, kOldGroupTimeout);
  const std::shared_ptr<grpc::Channel> channel = NewChannel(address);
  std::unique_ptr<CoordinatorLink> link(new CoordinatorLink(address));
  link->stub_ = v1::WorkerLink::NewStub(channel);
  absl::Status refusal;  // because of another group
  bool said_waiting = false;
  while (true) {
    if (cancelled && cancelled()) {
      return absl::CancelledError(absl::StrCat(
          "waiting for the coordinator at ", address, " was cancelled"));
    }
    const absl::Time attempt =
        std::min(deadline, absl::Now() + absl::Seconds(1));
    if (channel->WaitForConnected(absl::ToChronoTime(attempt))) {
      const grpc::Status status = link->Introduce(*link->stub_, hello);
      if (status.ok()) return link;
      if (status.error_code() != grpc::StatusCode::UNAVAILABLE) {
        refusal = Refusal(address, status);
        if (!absl::IsAlreadyExists(refusal)) return refusal;
      }
      absl::SleepFor(absl::Milliseconds(100));
    }
    if (!refusal.ok() && absl::Now() >= old_group_deadline) return refusal;
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("no coordinator answered at ", address, " within ",
                       absl::FormatDuration(timeout)));
    }
    if (!std::exchange(said_waiting, true)) {
      OCTET_LOG(INFO) << "waiting for the coordinator at " << address
                      << (refusal.ok() ? "" : ": ") << refusal.message();
    }
  }
}

grpc::Status CoordinatorLink::Introduce(Stub& stub, const v1::Hello& hello) {
  context_ = std::make_unique<grpc::ClientContext>();
  stream_ = stub.Connect(context_.get());
  v1::WorkerMessage message;
  *message.mutable_hello() = hello;
  v1::CoordinatorMessage answer;
  if (stream_->Write(message) && stream_->Read(&answer)) {
    if (answer.has_welcome()) {
      epoch_ = answer.welcome().epoch();
      return grpc::Status::OK;
    }
    context_->TryCancel();
    Finish();
    return grpc::Status(grpc::StatusCode::INTERNAL,
                        "its first message is not a Welcome");
  }
  const grpc::Status status = Finish();
  return status.ok() ? grpc::Status(grpc::StatusCode::UNAVAILABLE,
                                    "it closed the stream before a Welcome")
                     : status;
}

// Ends the stream; cancels it when the other side does not close in time.
grpc::Status CoordinatorLink::Finish() {
  absl::Notification done;
  std::thread watchdog([&] {
    if (!done.WaitForNotificationWithTimeout(kCloseTimeout)) {
      context_->TryCancel();
    }
  });
  stream_->WritesDone();
  v1::CoordinatorMessage ignored;
  while (stream_->Read(&ignored)) continue;
  const grpc::Status status = stream_->Finish();
  done.Notify();
  watchdog.join();
  stream_.reset();
  return status;
}

CoordinatorLink::~CoordinatorLink() {
  if (stream_ != nullptr) Finish();
}

std::optional<v1::Plan> CoordinatorLink::Next() {
  v1::CoordinatorMessage message;
  if (stream_ == nullptr) return std::nullopt;
  while (stream_->Read(&message)) {
    if (message.has_plan()) return std::move(*message.mutable_plan());
  }
  const grpc::Status status = Finish();
  if (!status.ok()) {
    end_ = absl::UnavailableError(absl::StrCat(
        "the coordinator at ", address_, " is gone: ", status.error_message()));
  }
  return std::nullopt;
}

void CoordinatorLink::SendResult(const v1::StepResult& result) {
  if (stream_ == nullptr) return;
  v1::WorkerMessage message;
  *message.mutable_result() = result;
  stream_->Write(message);
}

void CoordinatorLink::SendFailure(const v1::GroupFailure& failure) {
  if (stream_ == nullptr) return;
  v1::WorkerMessage message;
  *message.mutable_failure() = failure;
  stream_->Write(message);
  Finish();
}

}  // namespace octet
