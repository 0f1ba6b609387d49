// Splits the time of one thread into phases, on the host's clock. A backend
// that runs behind the calls shows its time in the phase that waits for it.
#ifndef OCTET_WORKER_NN_PHASE_CLOCK_H_
#define OCTET_WORKER_NN_PHASE_CLOCK_H_

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace octet {

class PhaseClock {
 public:
  // Adds the time since construction or the last call to a counter.
  void AddTo(double& seconds) {
    const absl::Time now = absl::Now();
    seconds += absl::ToDoubleSeconds(now - last_);
    last_ = now;
  }

 private:
  absl::Time last_ = absl::Now();
};

}  // namespace octet

#endif  // OCTET_WORKER_NN_PHASE_CLOCK_H_
