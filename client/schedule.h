// Learning rates over a run, and the arithmetic of its steps, as the Trainer of
// transformers has them. Pure functions, but for PlateauSchedule.
#ifndef OCTET_CLIENT_SCHEDULE_H_
#define OCTET_CLIENT_SCHEDULE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace octet {

enum class ScheduleKind {
  kLinear,
  kCosine,
  kCosineWithRestarts,
  kPolynomial,
  kConstant,
  kConstantWithWarmup,
  kInverseSqrt,
  kReduceOnPlateau,
};

// Names as in `lr_scheduler_type`: "linear", "cosine", "reduce_lr_on_plateau",
// ... INVALID_ARGUMENT lists them.
absl::StatusOr<ScheduleKind> ParseScheduleKind(absl::string_view name);
absl::Span<const absl::string_view> ScheduleNames();

struct Schedule {
  ScheduleKind kind = ScheduleKind::kLinear;
  double peak = 5e-5;        // learning_rate
  int64_t warmup_steps = 0;  // the rate rises from 0 linearly
  int64_t total_steps = 1;
};

// The rate of optimizer step `step`, from 0. With w warm-up steps, n in all and
// p = (step - w) / (n - w) in [0, 1]:
//   linear                1 - p
//   cosine (and with one restart cycle)   (1 + cos(pi p)) / 2
//   polynomial            (peak - 1e-7) (1 - p) + 1e-7, not times peak
//   constant, constant_with_warmup        1
//   inverse_sqrt          1 / sqrt((step + t - w) / t), t = w or 10000
// times peak. kConstant knows no warm-up; kReduceOnPlateau is the peak.
double LearningRate(const Schedule& schedule, int64_t step);

// torch's ReduceLROnPlateau with its defaults: the rate is a tenth of what it
// was when the loss has not become better by one part in 10^4 for more than 10
// evaluations.
class PlateauSchedule {
 public:
  explicit PlateauSchedule(double peak) : rate_(peak) {}
  void Observe(double eval_loss);
  double rate() const { return rate_; }

  // State as text, for checkpoints.
  std::string ToString() const;
  static absl::StatusOr<PlateauSchedule> Parse(absl::string_view text);

 private:
  double rate_;
  double best_ = 0;
  bool any_ = false;
  int num_bad_ = 0;
};

struct StepCounts {
  int64_t batches_per_epoch = 0;  // microbatches
  int64_t steps_per_epoch = 0;    // max(1, floor(batches / accumulation))
  int64_t total_steps = 0;   // max_steps, or ceil(epochs * steps_per_epoch)
  int64_t warmup_steps = 0;  // given, or ceil(ratio * total)
};

// max_steps <= 0: by epochs, which needs num_batches > 0.
StepCounts CountSteps(int64_t num_batches, int accumulation, double epochs,
                      int64_t max_steps, int64_t warmup_steps,
                      double warmup_ratio);

}  // namespace octet

#endif  // OCTET_CLIENT_SCHEDULE_H_
