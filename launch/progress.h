// A progress line on a terminal: share, rate and time left, redrawn in place at
// most ten times a second. Where standard error is not a terminal it prints a
// line every ten seconds instead. Silent for work under two seconds. One thread
// at a time.
#ifndef OCTET_LAUNCH_PROGRESS_H_
#define OCTET_LAUNCH_PROGRESS_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace octet {

class Progress {
 public:
  // `what` is done to `total` of `unit`; unit "bytes" is shown as MiB.
  Progress(std::string what, int64_t total, std::string unit);
  void Update(int64_t done);
  // The last line, with the rate over all.
  void Finish();

 private:
  void Print(int64_t done, bool last);

  const std::string what_;
  const int64_t total_;
  const double scale_;  // units per printed unit
  const std::string unit_;
  const bool terminal_;
  const absl::Time start_;
  absl::Time next_;
  bool printed_ = false;
};

}  // namespace octet

#endif  // OCTET_LAUNCH_PROGRESS_H_
