// Sends what a MessageQueue holds to a gRPC client, one write at a time, and
// ends the call with the status that the queue was closed with. After the
// client has gone it discards what is left until the queue is closed.
// Owns itself from Start until gRPC is done with it.
#ifndef OCTET_COORDINATOR_STREAM_REACTOR_H_
#define OCTET_COORDINATOR_STREAM_REACTOR_H_

#include <functional>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/group_failure.h"
#include "coordinator/message_queue.h"
#include "grpcpp/grpcpp.h"

namespace octet {

template <typename T>
class StreamReactor final
    : public grpc::ServerWriteReactor<T>,
      public std::enable_shared_from_this<StreamReactor<T>> {
 public:
  // `on_gone` is called, at most once or twice, when the client has gone; it
  // must see to it that the queue is closed.
  static StreamReactor* Start(std::shared_ptr<MessageQueue<T>> queue,
                              std::function<void()> on_gone) {
    std::shared_ptr<StreamReactor> reactor(
        new StreamReactor(queue, std::move(on_gone)));
    reactor->self_ = reactor;
    queue->SetOnReady([weak = std::weak_ptr<StreamReactor>(reactor)] {
      if (const auto locked = weak.lock()) locked->Advance();
    });
    reactor->Advance();
    return reactor.get();
  }

  void OnWriteDone(bool ok) override {
    {
      absl::MutexLock lock(&mu_);
      writing_ = false;
      gone_ = gone_ || !ok;
    }
    if (!ok) on_gone_();
    Advance();
  }

  void OnCancel() override {
    {
      absl::MutexLock lock(&mu_);
      gone_ = true;
    }
    on_gone_();
    Advance();
  }

  void OnDone() override { self_.reset(); }

 private:
  using Queue = MessageQueue<T>;

  StreamReactor(std::shared_ptr<Queue> queue, std::function<void()> on_gone)
      : queue_(std::move(queue)), on_gone_(std::move(on_gone)) {}

  void Advance() {
    absl::MutexLock lock(&mu_);
    while (!writing_ && !finished_) {
      absl::Status status;
      switch (queue_->Pop(&message_, &status)) {
        case Queue::Next::kEmpty:
          return;
        case Queue::Next::kClosed:
          finished_ = true;
          this->Finish(ToGrpcStatus(status));
          return;
        case Queue::Next::kMessage:
          if (gone_) break;  // discard
          writing_ = true;
          this->StartWrite(&message_);
      }
    }
  }

  const std::shared_ptr<Queue> queue_;
  const std::function<void()> on_gone_;
  std::shared_ptr<StreamReactor> self_;

  absl::Mutex mu_;
  T message_;  // written by gRPC while writing_
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool gone_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace octet

#endif  // OCTET_COORDINATOR_STREAM_REACTOR_H_
