// Waiting for SIGINT and SIGTERM in a program with threads: the signals are
// blocked in all of them and taken here, synchronously.
#ifndef OCTET_LAUNCH_SHUTDOWN_SIGNAL_H_
#define OCTET_LAUNCH_SHUTDOWN_SIGNAL_H_

#include <functional>

namespace octet {

// Call first in main, before threads start.
void BlockShutdownSignals();

// Children started with exec must not inherit the blocked mask.
void UnblockShutdownSignals();

// Blocks until a signal came (returns true) or `finished`, asked ten times a
// second, says true (returns false).
bool WaitForShutdownSignal(const std::function<bool()>& finished);

// Takes a signal that has come, without waiting.
bool TakeShutdownSignal();

}  // namespace octet

#endif  // OCTET_LAUNCH_SHUTDOWN_SIGNAL_H_
