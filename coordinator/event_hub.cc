#include "coordinator/event_hub.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace octet {

std::shared_ptr<EventHub::Queue> EventHub::Subscribe() {
  auto queue = std::make_shared<Queue>(queue_limit_);
  absl::MutexLock lock(&mu_);
  if (closed_.ok()) {
    queues_.push_back(queue);
  } else {
    queue->Close(closed_);
  }
  return queue;
}

void EventHub::Unsubscribe(const std::shared_ptr<Queue>& queue) {
  {
    absl::MutexLock lock(&mu_);
    for (auto it = queues_.begin(); it != queues_.end(); ++it) {
      if (*it != queue) continue;
      queues_.erase(it);
      break;
    }
  }
  queue->Close(absl::CancelledError("the watcher has gone"));
}

void EventHub::Publish(const v1::Event& event) {
  std::vector<std::shared_ptr<Queue>> queues;
  {
    absl::MutexLock lock(&mu_);
    queues = queues_;
  }
  for (const auto& queue : queues) {
    if (queue->Push(event)) continue;
    queue->Close(absl::ResourceExhaustedError(
        absl::StrCat("the watcher is ", queue_limit_, " events behind")));
    Unsubscribe(queue);
  }
}

void EventHub::Close(const absl::Status& status) {
  std::vector<std::shared_ptr<Queue>> queues;
  {
    absl::MutexLock lock(&mu_);
    if (!closed_.ok()) return;
    closed_ = status;
    queues.swap(queues_);
  }
  for (const auto& queue : queues) queue->Close(status);
}

}  // namespace octet
