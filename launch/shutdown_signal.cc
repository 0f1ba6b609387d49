#include "launch/shutdown_signal.h"

#include <signal.h>
#include <time.h>

namespace octet {
namespace {

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
  const timespec tenth = {.tv_sec = 0, .tv_nsec = 100'000'000};
  while (!finished()) {
    if (sigtimedwait(&set, nullptr, &tenth) > 0) return true;
  }
  return false;
}

bool TakeShutdownSignal() {
  const sigset_t set = ShutdownSet();
  const timespec none = {};
  return sigtimedwait(&set, nullptr, &none) > 0;
}

}  // namespace octet
