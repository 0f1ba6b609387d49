#include "client/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace octet {
namespace {

// In the order of ScheduleKind.
constexpr absl::string_view kNames[] = {"linear",
                                        "cosine",
                                        "cosine_with_restarts",
                                        "polynomial",
                                        "constant",
                                        "constant_with_warmup",
                                        "inverse_sqrt",
                                        "reduce_lr_on_plateau"};
constexpr double kPolynomialEnd = 1e-7;
constexpr double kDefaultTimescale = 10000;
// Of torch's ReduceLROnPlateau.
constexpr double kPlateauFactor = 0.1, kPlateauThreshold = 1e-4;
constexpr double kPlateauLeast = 1e-8;
constexpr int kPlateauPatience = 10;

double Decay(const Schedule& schedule, int64_t step) {
  const double warmup = static_cast<double>(schedule.warmup_steps);
  const double span =
      std::max(1.0, static_cast<double>(schedule.total_steps) - warmup);
  const double progress = (static_cast<double>(step) - warmup) / span;
  switch (schedule.kind) {
    case ScheduleKind::kLinear:
      return std::max(0.0, 1 - progress);
    case ScheduleKind::kCosine:
      return std::max(0.0, 0.5 * (1 + std::cos(std::numbers::pi * progress)));
    case ScheduleKind::kCosineWithRestarts:
      return progress >= 1 ? 0.0
                           : 0.5 * (1 + std::cos(std::numbers::pi * progress));
    case ScheduleKind::kPolynomial:
      if (progress > 1) return kPolynomialEnd / schedule.peak;
      return ((schedule.peak - kPolynomialEnd) * (1 - progress) +
              kPolynomialEnd) /
             schedule.peak;
    case ScheduleKind::kInverseSqrt: {
      const double timescale = warmup > 0 ? warmup : kDefaultTimescale;
      return 1 / std::sqrt((static_cast<double>(step) + timescale - warmup) /
                           timescale);
    }
    case ScheduleKind::kConstant:
    case ScheduleKind::kConstantWithWarmup:
    case ScheduleKind::kReduceOnPlateau:
      break;
  }
  return 1;
}

}  // namespace

absl::Span<const absl::string_view> ScheduleNames() { return kNames; }

absl::StatusOr<ScheduleKind> ParseScheduleKind(absl::string_view name) {
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (name == kNames[i]) return static_cast<ScheduleKind>(i);
  }
  return absl::InvalidArgumentError(absl::StrCat("lr_scheduler_type is '", name,
                                                 "', expected one of ",
                                                 absl::StrJoin(kNames, ", ")));
}

double LearningRate(const Schedule& schedule, int64_t step) {
  const bool warms_up = schedule.kind != ScheduleKind::kConstant &&
                        schedule.kind != ScheduleKind::kReduceOnPlateau;
  if (warms_up && step < schedule.warmup_steps) {
    return schedule.peak * static_cast<double>(step) /
           static_cast<double>(schedule.warmup_steps);
  }
  return schedule.peak * Decay(schedule, step);
}

void PlateauSchedule::Observe(double eval_loss) {
  if (!any_ || eval_loss < best_ * (1 - kPlateauThreshold)) {
    best_ = eval_loss;
    any_ = true;
    num_bad_ = 0;
    return;
  }
  if (++num_bad_ <= kPlateauPatience) return;
  num_bad_ = 0;
  if (rate_ * (1 - kPlateauFactor) > kPlateauLeast) rate_ *= kPlateauFactor;
}

std::string PlateauSchedule::ToString() const {
  return absl::StrFormat("%.17g %.17g %d %d", rate_, best_, any_, num_bad_);
}

absl::StatusOr<PlateauSchedule> PlateauSchedule::Parse(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ' ');
  PlateauSchedule schedule(0);
  int any = 0;
  if (parts.size() != 4 || !absl::SimpleAtod(parts[0], &schedule.rate_) ||
      !absl::SimpleAtod(parts[1], &schedule.best_) ||
      !absl::SimpleAtoi(parts[2], &any) ||
      !absl::SimpleAtoi(parts[3], &schedule.num_bad_)) {
    return absl::InvalidArgumentError(
        absl::StrCat("schedule state is '", text, "', expected four numbers"));
  }
  schedule.any_ = any != 0;
  return schedule;
}

StepCounts CountSteps(int64_t num_batches, int accumulation, double epochs,
                      int64_t max_steps, int64_t warmup_steps,
                      double warmup_ratio) {
  StepCounts counts;
  counts.batches_per_epoch = num_batches;
  counts.steps_per_epoch = std::max<int64_t>(1, num_batches / accumulation);
  counts.total_steps =
      max_steps > 0
          ? max_steps
          : static_cast<int64_t>(std::ceil(
                epochs * static_cast<double>(counts.steps_per_epoch)));
  counts.warmup_steps =
      warmup_steps > 0
          ? warmup_steps
          : static_cast<int64_t>(std::ceil(
                warmup_ratio * static_cast<double>(counts.total_steps)));
  return counts;
}

}  // namespace octet
