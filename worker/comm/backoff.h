// How to wait for something that only polling can see: poll, then give the core
// to others, then sleep. The waits of MPI and CUDA burn a core. One thread.
#ifndef OCTET_WORKER_COMM_BACKOFF_H_
#define OCTET_WORKER_COMM_BACKOFF_H_

#include <sched.h>

#include <chrono>
#include <thread>

namespace octet {

class Backoff {
 public:
  // `crowded`: more ranks than cores on this host, so that polling takes the
  // core from the rank one waits for.
  explicit Backoff(bool crowded)
      : crowded_(crowded), start_(std::chrono::steady_clock::now()) {}

  // Something happened: more is likely soon.
  void Reset() { start_ = std::chrono::steady_clock::now(); }

  void Pause() {
    using std::chrono::microseconds;
    using std::chrono::milliseconds;
    const auto waited = std::chrono::steady_clock::now() - start_;
    if (!crowded_ && waited < microseconds(20)) return;
    if (waited < milliseconds(2)) {
      sched_yield();
    } else if (waited < milliseconds(100)) {
      std::this_thread::sleep_for(microseconds(100));
    } else {
      std::this_thread::sleep_for(milliseconds(1));
    }
  }

 private:
  const bool crowded_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace octet

#endif  // OCTET_WORKER_COMM_BACKOFF_H_
