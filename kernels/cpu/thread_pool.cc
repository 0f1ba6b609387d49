#include "kernels/cpu/thread_pool.h"

#include <immintrin.h>

#include <chrono>
#include <system_error>

#include "base/logging.h"

namespace octet::cpu {
namespace {

// Longer than the serial gaps between the operations of one layer, short
// enough that an idle pool does not heat the machine.
constexpr std::chrono::microseconds kSpin{40};

// Waits until `value` is no longer `old`: spins, then sleeps.
void AwaitChange(const std::atomic<uint32_t>& value, uint32_t old) {
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
      _mm_pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  value.wait(old, std::memory_order_acquire);
}

constexpr uint32_t kOpen = 1;
constexpr uint32_t kOneJoined = 2;

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  OCTET_CHECK(num_threads >= 1) << num_threads << " threads";
  workers_.reserve(num_threads - 1);
  try {
    for (int thread = 1; thread < num_threads; ++thread) {
      workers_.emplace_back([this, thread] { WorkerLoop(thread); });
    }
  } catch (const std::system_error&) {
    Stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { Stop(); }

void ThreadPool::Stop() {
  stop_.store(true, std::memory_order_relaxed);
  wake_.fetch_add(1, std::memory_order_release);
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::ParallelFor(int64_t num_items, Body body) {
  if (workers_.empty() || num_items <= 1) {
    for (int64_t item = 0; item < num_items; ++item) body(item, 0);
    return;
  }
  body_ = &body;
  num_items_ = num_items;
  next_item_.store(0, std::memory_order_relaxed);
  finished_.store(0, std::memory_order_relaxed);
  job_.store(kOpen, std::memory_order_release);
  wake_.fetch_add(1, std::memory_order_release);
  wake_.notify_all();

  RunItems(body, num_items, 0);

  // Nobody joins from here on; those who did are awaited.
  const uint32_t joined =
      job_.fetch_and(~kOpen, std::memory_order_acq_rel) / kOneJoined;
  for (;;) {
    const uint32_t finished = finished_.load(std::memory_order_acquire);
    if (finished == joined) return;
    AwaitChange(finished_, finished);
  }
}

bool ThreadPool::Join() {
  uint32_t job = job_.load(std::memory_order_relaxed);
  while (job & kOpen) {
    if (job_.compare_exchange_weak(job, job + kOneJoined,
                                   std::memory_order_acq_rel,
                                   std::memory_order_relaxed)) {
      return true;
    }
  }
  return false;
}

void ThreadPool::RunItems(const Body& body, int64_t num_items, int thread) {
  for (;;) {
    const int64_t item = next_item_.fetch_add(1, std::memory_order_relaxed);
    if (item >= num_items) return;
    body(item, thread);
  }
}

void ThreadPool::WorkerLoop(int thread) {
  uint32_t seen = 0;
  for (;;) {
    AwaitChange(wake_, seen);
    seen = wake_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_relaxed)) return;
    if (!Join()) continue;
    RunItems(*body_, num_items_, thread);
    finished_.fetch_add(1, std::memory_order_release);
    finished_.notify_one();
  }
}

}  // namespace octet::cpu
