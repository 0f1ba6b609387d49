// Waiting for SIGINT and SIGTERM in a program with threads: the signals are
// blocked in all of them and taken here, synchronously.
#ifndef OCTET_LAUNCH_SHUTDOWN_SIGNAL_H_
#define OCTET_LAUNCH_SHUTDOWN_SIGNAL_H_

#include <atomic>
#include <functional>
#include <string>
#include <thread>

namespace octet {

// Call first in main, before threads start.
void BlockShutdownSignals();

// Children started with exec must not inherit the blocked mask.
void UnblockShutdownSignals();

// Blocks until a signal came (returns true) or `finished`, asked ten times a
// second, says true (returns false).
bool WaitForShutdownSignal(const std::function<bool()>& finished);

// Takes signals in a thread of its own while it lives, for a program that
// looks only now and then whether it was asked to end.
class ShutdownWatch {
 public:
  // `program` leads the line that says that a second signal, half a second
  // later or more, ends it at once.
  explicit ShutdownWatch(std::string program);
  ~ShutdownWatch();
  ShutdownWatch(const ShutdownWatch&) = delete;
  ShutdownWatch& operator=(const ShutdownWatch&) = delete;

  // Has a signal come? Thread-safe.
  bool Asked() const { return asked_; }

 private:
  void Run(const std::string& program);

  std::atomic<bool> asked_ = false, ended_ = false;
  std::thread thread_;
};

}  // namespace octet

#endif  // OCTET_LAUNCH_SHUTDOWN_SIGNAL_H_
