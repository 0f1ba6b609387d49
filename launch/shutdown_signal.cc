#include "launch/shutdown_signal.h"

#include <signal.h>
#include <time.h>

#include <cstdio>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace octet {
namespace {

// Launchers forward what the terminal has sent to all already: that is one.
constexpr absl::Duration kSameSignal = absl::Milliseconds(500);

constexpr timespec kTenth = {.tv_sec = 0, .tv_nsec = 100'000'000};

sigset_t ShutdownSet() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

}  // namespace

void BlockShutdownSignals() {
  const sigset_t set = ShutdownSet();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

void UnblockShutdownSignals() {
  const sigset_t set = ShutdownSet();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

bool WaitForShutdownSignal(const std::function<bool()>& finished) {
  const sigset_t set = ShutdownSet();
  while (!finished()) {
    if (sigtimedwait(&set, nullptr, &kTenth) > 0) return true;
  }
  return false;
}

ShutdownWatch::ShutdownWatch(std::string program)
    : thread_([this, program = std::move(program)] { Run(program); }) {}

ShutdownWatch::~ShutdownWatch() {
  ended_ = true;
  thread_.join();
}

void ShutdownWatch::Run(const std::string& program) {
  const sigset_t set = ShutdownSet();
  absl::Time first = absl::InfiniteFuture();
  while (!ended_) {
    const int number = sigtimedwait(&set, nullptr, &kTenth);
    if (number <= 0) continue;
    if (absl::Now() - first > kSameSignal) {
      // As if it had not been taken: this thread alone lets it through.
      signal(number, SIG_DFL);
      raise(number);
      UnblockShutdownSignals();
    }
    if (asked_) continue;
    first = absl::Now();
    std::fprintf(stderr,
                 "\n%s: ends when it can; the same signal again ends it at "
                 "once\n",
                 program.c_str());
    asked_ = true;
  }
}

}  // namespace octet
