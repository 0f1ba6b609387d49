#include "kernels/cpu/thread_pool.h"

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace octet::cpu {
namespace {

class ThreadPoolTest : public testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, RunsEveryItemOnceOnAValidThread) {
  ThreadPool pool(GetParam());
  ASSERT_EQ(pool.num_threads(), GetParam());
  for (int64_t num_items : {0, 1, 2, 3, 7, 64, 1000}) {
    std::vector<int> runs(num_items, 0);
    std::atomic<bool> valid{true};
    pool.ParallelFor(num_items, [&](int64_t item, int thread) {
      ++runs[item];
      if (thread < 0 || thread >= pool.num_threads()) valid = false;
    });
    EXPECT_TRUE(valid);
    EXPECT_EQ(runs, std::vector<int>(num_items, 1));
  }
}

// Plain memory written by the items of one loop is read by those of the next.
TEST_P(ThreadPoolTest, LoopsInSuccessionSeeEachOthersWrites) {
  ThreadPool pool(GetParam());
  std::vector<int64_t> values(101, 0);
  for (int round = 0; round < 500; ++round) {
    pool.ParallelFor(101, [&](int64_t item, int) {
      values[item] += values[item] == round ? 1 : 1000000;
    });
  }
  EXPECT_EQ(values, std::vector<int64_t>(101, 500));
}

// A thread never runs two items at a time, so per-thread memory needs no lock.
TEST_P(ThreadPoolTest, ThreadIdsOwnTheirMemory) {
  ThreadPool pool(GetParam());
  std::vector<int64_t> sums(pool.num_threads(), 0);
  for (int round = 0; round < 50; ++round) {
    pool.ParallelFor(100,
                     [&](int64_t item, int thread) { sums[thread] += item; });
  }
  EXPECT_EQ(std::accumulate(sums.begin(), sums.end(), int64_t{0}), 50 * 4950);
}

// After the spinning phase workers sleep, and must be woken.
TEST_P(ThreadPoolTest, WakesFromSleep) {
  ThreadPool pool(GetParam());
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::atomic<int64_t> sum{0};
    pool.ParallelFor(10, [&](int64_t item, int) { sum += item; });
    EXPECT_EQ(sum, 45);
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest,
                         testing::Values(1, 2, 3, 4, 7, 16));

TEST(ThreadPoolsTest, PoolsOfSeveralThreadsAreIndependent) {
  std::vector<std::thread> ranks;
  std::atomic<int64_t> total{0};
  for (int rank = 0; rank < 4; ++rank) {
    ranks.emplace_back([&total] {
      ThreadPool pool(3);
      for (int round = 0; round < 50; ++round) {
        pool.ParallelFor(20, [&](int64_t, int) { ++total; });
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
  EXPECT_EQ(total, 4 * 50 * 20);
}

}  // namespace
}  // namespace octet::cpu
