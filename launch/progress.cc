#include "launch/progress.h"

#include <unistd.h>

#include <cstdio>
#include <utility>

#include "absl/time/clock.h"

namespace octet {

Progress::Progress(std::string what, int64_t total, std::string unit)
    : what_(std::move(what)),
      total_(total),
      scale_(unit == "bytes" ? 1 << 20 : 1),
      unit_(unit == "bytes" ? "MiB" : std::move(unit)),
      terminal_(isatty(STDERR_FILENO)),
      start_(absl::Now()),
      next_(start_ + absl::Seconds(2)) {}

void Progress::Update(int64_t done) {
  const absl::Time now = absl::Now();
  if (now < next_) return;
  next_ = now + (terminal_ ? absl::Milliseconds(100) : absl::Seconds(10));
  Print(done, /*last=*/false);
}

void Progress::Finish() {
  if (printed_) Print(total_, /*last=*/true);
}

void Progress::Print(int64_t done, bool last) {
  printed_ = true;
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start_);
  const double rate = seconds > 0 ? done / seconds : 0;
  const double left = rate > 0 ? (total_ - done) / rate : 0;
  std::fprintf(stderr, "%s%s %.0f/%.0f %s (%.0f%%), %.1f %s/s, %s%.0f s%s",
               terminal_ ? "\r\033[K" : "", what_.c_str(), done / scale_,
               total_ / scale_, unit_.c_str(),
               total_ > 0 ? 100.0 * done / total_ : 100.0, rate / scale_,
               unit_.c_str(), last ? "took " : "left ", last ? seconds : left,
               terminal_ && !last ? "" : "\n");
}

}  // namespace octet
