#include "client/train/train_job.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/train/padding.h"

namespace octet {
namespace {

// A run whose gradients are not finite so often in a row will not recover.
constexpr int kMaxSkippedSteps = 10;

// The mean over the labels of all slots.
double TokenMean(const v1::ForwardResponse& response) {
  double sum = 0;
  int64_t labels = 0;
  for (const v1::SlotResult& slot : response.slots()) {
    sum += slot.loss() * static_cast<double>(slot.num_labels());
    labels += slot.num_labels();
  }
  return labels > 0 ? sum / static_cast<double>(labels) : 0;
}

}  // namespace

// What the calls of one optimizer step add up to.
struct TrainJob::StepSums {
  double loss = 0, aux_loss = 0, z_loss = 0;
  int64_t tokens = 0;
  int64_t rows = 0;
};

TrainJob::TrainJob(TrainJobOptions options, DataPipeline& data,
                   TrainingClient& client, TrainObserver observer)
    : options_(std::move(options)),
      data_(data),
      client_(client),
      observer_(std::move(observer)),
      plateau_(options_.adamw.learning_rate()),
      eval_loss_(std::nan("")) {}

absl::StatusOr<TrainOutcome> TrainJob::Run() {
  absl::StatusOr<TrainOutcome> outcome = RunSteps();
  // The service may outlive this command, and has one run at a time.
  if (!outcome.ok() || outcome->stopped) LeaveRun();
  return outcome;
}

absl::StatusOr<TrainOutcome> TrainJob::RunSteps() {
  OCTET_RETURN_IF_ERROR(Begin());
  if (options_.eval_on_start && step_ == 0) {
    OCTET_RETURN_IF_ERROR(Evaluate().status());
  }
  TrainOutcome outcome;
  while (step_ < counts_.total_steps && !outcome.stopped) {
    OCTET_RETURN_IF_ERROR(Step());
    const bool last = step_ == counts_.total_steps;
    OCTET_RETURN_IF_ERROR(Log(last));
    if (options_.eval_steps > 0 && step_ % options_.eval_steps == 0 && !last) {
      OCTET_RETURN_IF_ERROR(Evaluate().status());
    }
    outcome.stopped = !last && observer_.stop && observer_.stop();
    OCTET_RETURN_IF_ERROR(FollowSave());
    if (options_.save_steps > 0 && step_ % options_.save_steps == 0) {
      OCTET_RETURN_IF_ERROR(SaveCheckpoint(!last && !outcome.stopped));
    }
  }
  const int64_t own_steps = step_ - start_step_;
  outcome.steps = step_;
  if (own_steps > 0)
    outcome.train_loss = loss_sum_ / static_cast<double>(own_steps);
  if (outcome.stopped) {
    OCTET_RETURN_IF_ERROR(Log(true));
    if (saved_step_ != step_) OCTET_RETURN_IF_ERROR(SaveCheckpoint(false));
    return outcome;
  }
  OCTET_RETURN_IF_ERROR(Finish());
  outcome.eval_loss = eval_loss_;
  return outcome;
}

absl::Status TrainJob::Begin() {
  const int64_t examples = data_.num_examples().value_or(0);
  if (examples == 0 && options_.max_steps <= 0) {
    return absl::InvalidArgumentError(
        "max_steps is not given, expected it with streaming, where the number "
        "of examples is not known");
  }
  const int64_t batches =
      (examples + options_.train_batch_size - 1) / options_.train_batch_size;
  counts_ = CountSteps(batches, options_.accumulation, options_.num_epochs,
                       options_.max_steps, options_.warmup_steps,
                       options_.warmup_ratio);
  schedule_ = {options_.schedule, options_.adamw.learning_rate(),
               counts_.warmup_steps, counts_.total_steps};

  OCTET_ASSIGN_OR_RETURN(run_, CreateRun());
  if (observer_.on_run) observer_.on_run(run_);
  if (options_.overwrite) OCTET_RETURN_IF_ERROR(RemoveAllCheckpoints());
  if (!options_.resume_from.empty()) {
    OCTET_RETURN_IF_ERROR(LoadCheckpoint());
  } else {
    OCTET_ASSIGN_OR_RETURN(
        TrainerLog log,
        TrainerLog::Open(options_.output_dir, counts_.total_steps, {}));
    log_ = std::make_unique<TrainerLog>(std::move(log));
  }
  start_ = window_start_ = absl::Now();
  start_step_ = step_;
  return absl::OkStatus();
}

double TrainJob::NextLearningRate() const {
  return options_.schedule == ScheduleKind::kReduceOnPlateau
             ? plateau_.rate()
             : LearningRate(schedule_, step_);
}

double TrainJob::Epoch() const {
  if (counts_.batches_per_epoch == 0) return data_.epoch();
  return static_cast<double>(step_) /
         static_cast<double>(counts_.steps_per_epoch);
}

// The last microbatch of an epoch has what is left.
absl::StatusOr<std::vector<v1::TrainingSlot>> TrainJob::NextMicrobatch() {
  int64_t count = options_.train_batch_size;
  if (const std::optional<int64_t> all = data_.num_examples()) {
    if (slots_in_epoch_ >= *all) slots_in_epoch_ = 0;
    count = std::min(count, *all - slots_in_epoch_);
  }
  slots_in_epoch_ += count;
  return data_.Next(static_cast<int>(count));
}

absl::Status TrainJob::ForwardBackward(std::vector<v1::TrainingSlot> slots,
                                       StepSums* sums) {
  // Microbatches of one row are slots; larger ones are a call each.
  const bool single = options_.train_batch_size == 1;
  const double weight = 1.0 / options_.accumulation;  // of a microbatch
  v1::ForwardBackwardRequest request;
  request.set_run_id(run_.run_id());
  request.set_seq_no(++seq_no_);
  request.set_loss_scale(single ? static_cast<double>(slots.size()) /
                                      options_.accumulation
                                : weight);
  for (v1::TrainingSlot& slot : slots) *request.add_slots() = std::move(slot);
  OCTET_ASSIGN_OR_RETURN(const v1::ForwardResponse response,
                         client_.ForwardBackward(request));
  const auto add = [&](const auto& microbatch) {
    sums->loss += weight * microbatch.loss();
    sums->aux_loss += weight * microbatch.aux_loss();
    sums->z_loss += weight * microbatch.z_loss();
  };
  if (single) {
    for (const v1::SlotResult& slot : response.slots()) add(slot);
  } else {
    add(response);
  }
  sums->tokens += response.num_tokens();
  sums->rows += request.slots_size();
  size_t at = 0;
  for (const v1::LayerExpertStats& layer : response.layers()) {
    num_experts_ = layer.expert_tokens_size();
    expert_tokens_.resize(
        std::max(expert_tokens_.size(),
                 at + static_cast<size_t>(layer.expert_tokens_size())));
    for (const int64_t tokens : layer.expert_tokens()) {
      expert_tokens_[at++] += tokens;
    }
  }
  return absl::OkStatus();
}

// Microbatches of one row are slots, and a call takes as many as it may.
// Larger ones are a call each: their loss is a mean over all their labels.
absl::Status TrainJob::ComputeGradients(StepSums* sums) {
  if (options_.train_batch_size > 1) {
    for (int i = 0; i < options_.accumulation; ++i) {
      OCTET_ASSIGN_OR_RETURN(std::vector<v1::TrainingSlot> slots,
                             NextMicrobatch());
      if (options_.padding_id.has_value()) {
        PadToLongest(*options_.padding_id, slots);
      }
      OCTET_RETURN_IF_ERROR(ForwardBackward(std::move(slots), sums));
    }
    return absl::OkStatus();
  }
  std::vector<v1::TrainingSlot> call;
  int64_t tokens = 0;
  const auto send = [&]() -> absl::Status {
    tokens = 0;
    return ForwardBackward(std::exchange(call, {}), sums);
  };
  for (int i = 0; i < options_.accumulation; ++i) {
    OCTET_ASSIGN_OR_RETURN(std::vector<v1::TrainingSlot> slots,
                           NextMicrobatch());
    for (v1::TrainingSlot& slot : slots) {
      const int64_t more = NumTokens(slot);
      if (!call.empty() && tokens + more > options_.call_tokens) {
        OCTET_RETURN_IF_ERROR(send());
      }
      tokens += more;
      call.push_back(std::move(slot));
    }
  }
  return send();
}

absl::Status TrainJob::Step() {
  StepSums sums;
  bool skipped = true;
  std::string not_finite;
  for (int attempt = 0; skipped; ++attempt) {
    if (attempt == kMaxSkippedSteps) {
      return absl::OutOfRangeError(
          absl::StrCat("step ", step_ + 1, ": the gradient of ", not_finite,
                       " was not finite in ", attempt,
                       " batches in a row; expected a smaller learning rate"));
    }
    sums = {};
    OCTET_RETURN_IF_ERROR(ComputeGradients(&sums));
    v1::OptimStepRequest request;
    request.set_run_id(run_.run_id());
    request.set_seq_no(++seq_no_);
    *request.mutable_adamw() = options_.adamw;
    last_rate_ = NextLearningRate();
    request.mutable_adamw()->set_learning_rate(last_rate_);
    OCTET_ASSIGN_OR_RETURN(const v1::OptimStepResponse response,
                           client_.OptimStep(request));
    skipped = response.skipped();
    not_finite = response.not_finite();
    last_grad_norm_ = response.grad_norm();
    if (skipped && observer_.on_note) {
      observer_.on_note(absl::StrCat("step ", step_ + 1, ": the gradient of ",
                                     not_finite,
                                     " is not finite; this batch is skipped"));
    }
  }
  ++step_;
  window_loss_ += sums.loss;
  window_aux_ += sums.aux_loss;
  window_z_ += sums.z_loss;
  window_tokens_ += sums.tokens;
  ++window_steps_;
  loss_sum_ += sums.loss;
  rows_seen_ += sums.rows;
  if (!observer_.on_step) return absl::OkStatus();
  TrainProgress progress;
  progress.step = step_;
  progress.total_steps = counts_.total_steps;
  progress.loss = sums.loss;
  progress.elapsed = absl::Now() - start_;
  progress.remaining =
      progress.elapsed / (step_ - start_step_) * (counts_.total_steps - step_);
  progress.tokens_per_second = TokensPerSecond();
  observer_.on_step(progress);
  return absl::OkStatus();
}

// Since the last log.
double TrainJob::TokensPerSecond() const {
  const double seconds = absl::ToDoubleSeconds(absl::Now() - window_start_);
  return static_cast<double>(window_tokens_) / std::max(1e-9, seconds);
}

absl::Status TrainJob::Log(bool force) {
  const bool due = step_ % options_.logging_steps == 0 ||
                   (options_.logging_first_step && step_ == 1);
  if (window_steps_ == 0 || !(due || force)) return absl::OkStatus();
  const double steps = static_cast<double>(window_steps_);
  LogEntry entry;
  entry.step = step_;
  entry.epoch = Epoch();
  entry.loss = window_loss_ / steps;
  entry.learning_rate = last_rate_;
  entry.grad_norm = last_grad_norm_;
  entry.aux_loss = window_aux_ / steps;
  if (options_.run.router_loss().z_coef() > 0) entry.z_loss = window_z_ / steps;
  entry.tokens_per_second = TokensPerSecond();
  window_loss_ = window_aux_ = window_z_ = 0;
  window_steps_ = window_tokens_ = 0;
  OCTET_RETURN_IF_ERROR(log_->Add(entry, absl::Now() - start_, start_step_));
  window_start_ = absl::Now();
  return absl::OkStatus();
}

// As the Trainer: the mean over batches of the mean over a batch's labels,
// each batch counted by its rows.
absl::StatusOr<double> TrainJob::Evaluate() {
  const int64_t rows = data_.num_validation_slots();
  if (rows == 0) return std::nan("");
  double sum = 0;
  for (int64_t first = 0; first < rows; first += options_.eval_batch_size) {
    const int64_t count =
        std::min<int64_t>(options_.eval_batch_size, rows - first);
    OCTET_ASSIGN_OR_RETURN(std::vector<v1::TrainingSlot> slots,
                           data_.ValidationSlots(first, count));
    v1::ForwardRequest request;
    request.set_run_id(run_.run_id());
    for (v1::TrainingSlot& slot : slots) *request.add_slots() = std::move(slot);
    OCTET_ASSIGN_OR_RETURN(const v1::ForwardResponse response,
                           client_.Forward(request));
    sum += TokenMean(response) * static_cast<double>(count);
  }
  eval_loss_ = sum / static_cast<double>(rows);
  plateau_.Observe(eval_loss_);
  LogEntry entry;
  entry.step = step_;
  entry.epoch = Epoch();
  entry.eval_loss = eval_loss_;
  OCTET_RETURN_IF_ERROR(log_->Add(entry, absl::Now() - start_, start_step_));
  if (observer_.on_note) {
    observer_.on_note(
        absl::StrFormat("step %d: eval_loss %.4f, perplexity %.3f over %d rows",
                        step_, eval_loss_, std::exp(eval_loss_), rows));
  }
  window_start_ = absl::Now();
  return eval_loss_;
}

}  // namespace octet
