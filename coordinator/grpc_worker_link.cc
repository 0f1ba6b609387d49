#include "coordinator/grpc_worker_link.h"

#include <deque>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "coordinator/group_failure.h"

namespace octet {

// One connected, or connecting, rank 0. Holds itself until OnDone.
class GrpcWorkerLink::Session final
    : public grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>,
      public std::enable_shared_from_this<Session> {
 public:
  Session(GrpcWorkerLink* link, std::string peer)
      : link_(link), peer_(std::move(peer)) {}

  void Start() {
    self_ = shared_from_this();
    StartRead(&incoming_);
  }

  int64_t epoch() const { return epoch_; }
  void set_epoch(int64_t epoch) { epoch_ = epoch; }

  void Send(v1::CoordinatorMessage message) {
    absl::MutexLock lock(&mu_);
    if (finished_) return;
    outgoing_.push_back(std::move(message));
    if (outgoing_.size() == 1) StartWrite(&outgoing_.front());
  }

  void Close(const absl::Status& status) {
    absl::MutexLock lock(&mu_);
    if (finished_) return;
    finished_ = true;
    Finish(ToGrpcStatus(status));
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      End();
      return;
    }
    const absl::Status status = Take();
    if (!status.ok()) {
      Close(status);
      if (epoch_ > 0)
        failure_ = MakeGroupFailure(std::string(status.message()));
      End();
      return;
    }
    if (failure_.has_value()) {  // whether or not the group closes the stream
      End();
      return;
    }
    incoming_.Clear();
    StartRead(&incoming_);
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mu_);
    outgoing_.pop_front();
    // A failed write is followed by a failed read, which ends the session.
    if (ok && !finished_ && !outgoing_.empty()) StartWrite(&outgoing_.front());
  }

  void OnDone() override { self_.reset(); }

 private:
  absl::Status Take() {
    switch (incoming_.kind_case()) {
      case v1::WorkerMessage::kHello:
        if (epoch_ > 0) {
          return absl::InvalidArgumentError(
              "the worker group said Hello twice");
        }
        return link_->Accept(this, incoming_.hello());
      case v1::WorkerMessage::kResult:
        if (epoch_ == 0) break;
        link_->listener_->OnStepResult(epoch_,
                                       std::move(*incoming_.mutable_result()));
        return absl::OkStatus();
      case v1::WorkerMessage::kFailure:
        if (epoch_ == 0) break;
        failure_ = incoming_.failure();
        return absl::OkStatus();
      case v1::WorkerMessage::KIND_NOT_SET:
        return absl::InvalidArgumentError(
            "the worker group sent an empty message");
    }
    return absl::InvalidArgumentError(
        "the worker group's first message is not Hello");
  }

  // The group has gone, whoever began it.
  void End() {
    if (epoch_ > 0) {
      link_->Lost(this,
                  failure_.value_or(MakeGroupFailure(absl::StrCat(
                      "the connection to its rank 0 (", peer_, ") ended"))));
    }
    Close(absl::OkStatus());
  }

  GrpcWorkerLink* const link_;
  const std::string peer_;
  std::shared_ptr<Session> self_;
  // Reactions to reads come one at a time.
  v1::WorkerMessage incoming_;
  int64_t epoch_ = 0;  // 0 until accepted
  std::optional<v1::GroupFailure> failure_;

  absl::Mutex mu_;
  std::deque<v1::CoordinatorMessage> outgoing_ ABSL_GUARDED_BY(mu_);
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>*
GrpcWorkerLink::Connect(grpc::CallbackServerContext* context) {
  auto session = std::make_shared<Session>(this, context->peer());
  session->Start();
  return session.get();
}

absl::Status GrpcWorkerLink::Accept(Session* session, const v1::Hello& hello) {
  const absl::Status status = listener_->CheckHello(hello);
  if (!status.ok()) return status;
  {
    absl::MutexLock lock(&mu_);
    if (session_ != nullptr) {
      return absl::AlreadyExistsError(
          absl::StrCat("worker group ", session_->epoch(),
                       " is connected, expected none: end it first"));
    }
    session->set_epoch(++last_epoch_);
    session_ = session->shared_from_this();
  }
  v1::CoordinatorMessage message;
  message.mutable_welcome()->set_epoch(session->epoch());
  session->Send(std::move(message));
  listener_->OnGroupReady(session->epoch(), hello);
  return absl::OkStatus();
}

void GrpcWorkerLink::Lost(Session* session, const v1::GroupFailure& failure) {
  // Told first, so that the next group's OnGroupReady comes after.
  listener_->OnGroupLost(session->epoch(), failure);
  absl::MutexLock lock(&mu_);
  session_.reset();
}

std::shared_ptr<GrpcWorkerLink::Session> GrpcWorkerLink::Find(int64_t epoch) {
  absl::MutexLock lock(&mu_);
  if (session_ == nullptr || session_->epoch() != epoch) return nullptr;
  return session_;
}

void GrpcWorkerLink::SendPlan(int64_t epoch, v1::Plan plan) {
  const std::shared_ptr<Session> session = Find(epoch);
  if (session == nullptr) return;
  v1::CoordinatorMessage message;
  *message.mutable_plan() = std::move(plan);
  session->Send(std::move(message));
}

void GrpcWorkerLink::CloseGroup(int64_t epoch, const absl::Status& status) {
  const std::shared_ptr<Session> session = Find(epoch);
  if (session != nullptr) session->Close(status);
}

}  // namespace octet
