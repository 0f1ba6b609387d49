// The bounded queue between the step loop, which never waits, and the gRPC
// stream that sends messages as fast as its client reads them.
//
// Thread-safe; one writer and one reader. Callbacks are called without locks.
// The writer is told when the queue is full and must then stop; it is called
// back when half of it has been read.
#ifndef OCTET_COORDINATOR_MESSAGE_QUEUE_H_
#define OCTET_COORDINATOR_MESSAGE_QUEUE_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace octet {

template <typename T>
class MessageQueue {
 public:
  enum class Next { kMessage, kClosed, kEmpty };

  explicit MessageQueue(size_t limit) : limit_(limit) {}
  MessageQueue(const MessageQueue&) = delete;
  MessageQueue& operator=(const MessageQueue&) = delete;

  // Writer. Called when a full queue has been read down to half.
  void SetOnDrained(std::function<void()> on_drained) {
    absl::MutexLock lock(&mu_);
    on_drained_ = std::move(on_drained);
  }
  // Writer. False when the queue is full and has not been drained since.
  // Ignored after Close.
  bool Push(T message) {
    bool has_room;
    std::function<void()> ready;
    {
      absl::MutexLock lock(&mu_);
      if (closed_) return true;
      messages_.push_back(std::move(message));
      // Stays full until it is drained, so that each pause has its wake-up.
      if (messages_.size() >= limit_) full_ = true;
      has_room = !full_;
      ready = on_ready_;
    }
    if (ready) ready();
    return has_room;
  }
  // Writer. The reader gets what is queued, then `status`. The first call
  // counts.
  void Close(absl::Status status) {
    std::function<void()> ready;
    {
      absl::MutexLock lock(&mu_);
      if (closed_) return;
      closed_ = true;
      status_ = std::move(status);
      ready = on_ready_;
    }
    if (ready) ready();
  }

  // Reader. Called after each Push and Close, on the writer's thread.
  void SetOnReady(std::function<void()> on_ready) {
    absl::MutexLock lock(&mu_);
    on_ready_ = std::move(on_ready);
  }
  // Reader. kMessage fills `message`; kClosed fills `status`.
  Next Pop(T* message, absl::Status* status) {
    std::function<void()> drained;
    {
      absl::MutexLock lock(&mu_);
      if (messages_.empty()) {
        if (!closed_) return Next::kEmpty;
        *status = status_;
        return Next::kClosed;
      }
      *message = std::move(messages_.front());
      messages_.pop_front();
      if (full_ && messages_.size() <= limit_ / 2) {
        full_ = false;
        drained = on_drained_;
      }
    }
    if (drained) drained();
    return Next::kMessage;
  }

  size_t size() const {
    absl::MutexLock lock(&mu_);
    return messages_.size();
  }

 private:
  const size_t limit_;
  mutable absl::Mutex mu_;
  std::deque<T> messages_ ABSL_GUARDED_BY(mu_);
  bool full_ ABSL_GUARDED_BY(mu_) = false;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  std::function<void()> on_ready_ ABSL_GUARDED_BY(mu_);
  std::function<void()> on_drained_ ABSL_GUARDED_BY(mu_);
};

}  // namespace octet

#endif  // OCTET_COORDINATOR_MESSAGE_QUEUE_H_
