// Fans events out to those who watch. A watcher that falls behind is closed
// with RESOURCE_EXHAUSTED, so memory stays bounded. Thread-safe.
#ifndef OCTET_COORDINATOR_EVENT_HUB_H_
#define OCTET_COORDINATOR_EVENT_HUB_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/message_queue.h"
#include "proto/cluster.pb.h"

namespace octet {

class EventHub {
 public:
  using Queue = MessageQueue<v1::Event>;

  explicit EventHub(size_t queue_limit) : queue_limit_(queue_limit) {}

  // Events from now on.
  std::shared_ptr<Queue> Subscribe();
  // Closes the queue; unknown ones are ignored.
  void Unsubscribe(const std::shared_ptr<Queue>& queue);

  void Publish(const v1::Event& event);
  // Closes every queue, now and later ones, with `status`.
  void Close(const absl::Status& status);

 private:
  const size_t queue_limit_;
  absl::Mutex mu_;
  std::vector<std::shared_ptr<Queue>> queues_ ABSL_GUARDED_BY(mu_);
  absl::Status closed_ ABSL_GUARDED_BY(mu_);
};

}  // namespace octet

#endif  // OCTET_COORDINATOR_EVENT_HUB_H_
