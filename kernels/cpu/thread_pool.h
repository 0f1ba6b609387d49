// Threads that stay, for loops of tens of microseconds and more.
//
//   ThreadPool pool(4);
//   pool.ParallelFor(num_items, [&](int64_t item, int thread) { ... });
//
// The calling thread takes part as thread 0, so a pool of 1 starts no thread
// and runs the loop inline. Items are handed out one by one in rising order to
// whoever is free. A thread that has not woken up by the time the items are
// gone is not waited for: an oversubscribed machine costs speed, never a stall.
// Idle threads spin for tens of microseconds, then sleep in the kernel.
//
// One thread at a time may call ParallelFor; calls do not nest. Everything that
// the items wrote is visible to the caller after the return.
#ifndef OCTET_KERNELS_CPU_THREAD_POOL_H_
#define OCTET_KERNELS_CPU_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace octet::cpu {

class ThreadPool {
 public:
  // (item, thread): item in [0, num_items), thread in [0, num_threads()).
  using Body = absl::FunctionRef<void(int64_t, int)>;

  // REQUIRES: num_threads >= 1. Throws std::system_error when the system has no
  // more threads.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs body once for every item and returns when all have run.
  void ParallelFor(int64_t num_items, Body body);

 private:
  void Stop();
  void WorkerLoop(int thread);
  // Counts this worker into the open job; false when there is none.
  bool Join();
  void RunItems(const Body& body, int64_t num_items, int thread);

  // Written by the caller while no worker is in a job.
  const Body* body_ = nullptr;
  int64_t num_items_ = 0;

  // One line each: they are written by different threads at different times.
  alignas(64) std::atomic<int64_t> next_item_{0};
  alignas(64) std::atomic<uint32_t> job_{0};       // 2 * workers joined + open
  alignas(64) std::atomic<uint32_t> finished_{0};  // workers that left the job
  alignas(64) std::atomic<uint32_t> wake_{0};      // rises with every job
  std::atomic<bool> stop_{false};

  std::vector<std::thread> workers_;
};

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_THREAD_POOL_H_
