#include "worker/comm/local/rendezvous.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <ctime>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace octet {
namespace {

using SteadyClock = std::chrono::steady_clock;

// Waking a sleeper costs a few microseconds on both sides, so a wait that is
// about to end stays awake this long.
constexpr std::chrono::microseconds kSpin{20};
constexpr std::chrono::microseconds kYield{50};

void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Returns on a wake, a changed word, a signal or the deadline; the caller looks
// again.
void FutexWait(const std::atomic<uint32_t>& word, uint32_t expected,
               SteadyClock::time_point deadline) {
  timespec timeout;
  timespec* timeout_or_null = nullptr;
  if (deadline != SteadyClock::time_point::max()) {
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(
        deadline - SteadyClock::now());
    if (left.count() <= 0) return;
    timeout.tv_sec = left.count() / 1000000000;
    timeout.tv_nsec = left.count() % 1000000000;
    timeout_or_null = &timeout;
  }
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, timeout_or_null,
          nullptr, 0);
}

}  // namespace

Rendezvous::Rendezvous(int size)
    : size_(size),
      spin_(static_cast<unsigned>(size) <= std::thread::hardware_concurrency()),
      slots_(std::make_unique<Slot[]>(size)) {}

bool Rendezvous::Complete(int64_t phase) const {
  return entries_.load(std::memory_order_seq_cst) >= (phase + 1) * size_;
}

Rendezvous::Outcome Rendezvous::Enter(int rank,
                                      SteadyClock::time_point deadline) {
  if (failed_.load(std::memory_order_seq_cst)) return Outcome::kFailed;
  Slot& slot = slots_[rank];
  const int64_t phase = slot.entered.load(std::memory_order_relaxed);
  slot.entered.store(phase + 1, std::memory_order_release);
  const int64_t entries = entries_.fetch_add(1, std::memory_order_seq_cst) + 1;
  // Nobody enters phase p + 1 before p is complete, so this counts exactly.
  if (entries == (phase + 1) * size_) {
    WakeAll();
    return Outcome::kAll;
  }
  if (WaitAwake(phase)) {
    return Complete(phase) ? Outcome::kAll : Outcome::kFailed;
  }
  return Sleep(rank, phase, deadline);
}

bool Rendezvous::WaitAwake(int64_t phase) const {
  const SteadyClock::time_point start = SteadyClock::now();
  for (int round = 1;; ++round) {
    if (Complete(phase) || failed_.load(std::memory_order_seq_cst)) return true;
    const bool look_at_clock = round % 64 == 0;
    if (spin_ && !look_at_clock) {
      CpuRelax();
      continue;
    }
    const auto waited = SteadyClock::now() - start;
    if (waited > kYield) return false;
    if (!spin_ || waited > kSpin) sched_yield();
  }
}

Rendezvous::Outcome Rendezvous::Sleep(int rank, int64_t phase,
                                      SteadyClock::time_point deadline) {
  // sleepers_ goes up before the epoch is read, and WakeAll raises the epoch
  // before it reads sleepers_: one of the two sees the other.
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  Outcome outcome;
  while (true) {
    const uint32_t epoch = epoch_.load(std::memory_order_seq_cst);
    FailIfMissingLeft(rank);
    if (Complete(phase)) {
      outcome = Outcome::kAll;
      break;
    }
    if (failed_.load(std::memory_order_seq_cst)) {
      outcome = Outcome::kFailed;
      break;
    }
    if (SteadyClock::now() >= deadline) {
      outcome = Outcome::kDeadline;
      break;
    }
    FutexWait(epoch_, epoch, deadline);
  }
  sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  return outcome;
}

void Rendezvous::WakeAll() {
  epoch_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) > 0) {
    syscall(SYS_futex, &epoch_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr,
            0);
  }
}

std::vector<int> Rendezvous::Missing(int rank) const {
  const int64_t mine = slots_[rank].entered.load(std::memory_order_relaxed);
  std::vector<int> missing;
  for (int peer = 0; peer < size_; ++peer) {
    if (slots_[peer].entered.load(std::memory_order_acquire) < mine) {
      missing.push_back(peer);
    }
  }
  return missing;
}

void Rendezvous::FailIfMissingLeft(int rank) {
  for (int peer : Missing(rank)) {
    if (slots_[peer].left.load(std::memory_order_seq_cst)) {
      Fail(absl::StatusCode::kUnavailable,
           absl::StrCat("rank ", peer, " has left the group"));
      return;
    }
  }
}

void Rendezvous::Fail(absl::StatusCode code, std::string reason) {
  {
    std::lock_guard lock(mutex_);
    if (failure_.code != absl::StatusCode::kOk) return;
    failure_ = {code, std::move(reason)};
  }
  failed_.store(true, std::memory_order_seq_cst);
  WakeAll();
}

Rendezvous::Reason Rendezvous::failure() const {
  std::lock_guard lock(mutex_);
  return failure_;
}

bool Rendezvous::BeginReading(int rank) {
  // The flag goes up before the failure is looked at, and AwaitReaders is
  // called after the failure was set: one of the two sees the other.
  slots_[rank].reading.store(true, std::memory_order_seq_cst);
  if (!failed_.load(std::memory_order_seq_cst)) return true;
  EndReading(rank);
  return false;
}

void Rendezvous::EndReading(int rank) {
  slots_[rank].reading.store(false, std::memory_order_seq_cst);
}

void Rendezvous::AwaitReaders() const {
  for (int peer = 0; peer < size_; ++peer) {
    while (slots_[peer].reading.load(std::memory_order_seq_cst)) sched_yield();
  }
}

void Rendezvous::Leave(int rank) {
  slots_[rank].left.store(true, std::memory_order_seq_cst);
  WakeAll();
}

}  // namespace octet
