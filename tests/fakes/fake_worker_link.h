// A WorkerLink without a network: keeps what was sent; the test answers.
#ifndef OCTET_TESTS_FAKES_FAKE_WORKER_LINK_H_
#define OCTET_TESTS_FAKES_FAKE_WORKER_LINK_H_

#include <cstdint>
#include <deque>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/worker_link.h"
#include "proto/worker.pb.h"

namespace octet::test {

// Thread-safe.
class FakeWorkerLink : public WorkerLink {
 public:
  void SendPlan(int64_t, v1::Plan plan) override {
    absl::MutexLock lock(&mu_);
    plans_.push_back(std::move(plan));
  }
  void CloseGroup(int64_t, const absl::Status& status) override {
    absl::MutexLock lock(&mu_);
    closed_with_ = std::string(status.message());
  }

  // The next plan; false when none comes within `timeout`.
  bool WaitPlan(v1::Plan* plan, absl::Duration timeout) {
    absl::MutexLock lock(&mu_);
    const auto some = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return !plans_.empty();
    };
    if (!mu_.AwaitWithTimeout(absl::Condition(&some), timeout)) return false;
    *plan = std::move(plans_.front());
    plans_.pop_front();
    return true;
  }
  std::string closed_with() const {
    absl::MutexLock lock(&mu_);
    return closed_with_;
  }

 private:
  mutable absl::Mutex mu_;
  std::deque<v1::Plan> plans_ ABSL_GUARDED_BY(mu_);
  std::string closed_with_ ABSL_GUARDED_BY(mu_);
};

}  // namespace octet::test

#endif  // OCTET_TESTS_FAKES_FAKE_WORKER_LINK_H_
