// The part of a training job that begins and ends its run on the service.
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/train/train_job.h"

namespace octet {
namespace {

// A step that a killed command had begun ends first.
constexpr absl::Duration kEndTimeout = absl::Minutes(2);
constexpr absl::Duration kEndRetry = absl::Milliseconds(100);
// The first may be refused with the error of a save in the background.
constexpr int kLeaveAttempts = 2;

// Ids of the runs of commands with this output directory begin with it.
std::string RunIdPrefix(const std::string& output_dir) {
  return absl::StrCat("octet train ", absl::Utf8SafeCEscape(output_dir), " ");
}

}  // namespace

// With room for saves in the background when there is any: that is said.
absl::StatusOr<v1::Run> TrainJob::CreateRun() {
  v1::CreateRunRequest request = options_.run;
  request.set_run_id(absl::StrCat(RunIdPrefix(options_.output_dir),
                                  absl::ToUnixNanos(absl::Now())));
  const bool single = options_.train_batch_size == 1;
  request.set_reduction(single ? v1::LOSS_REDUCTION_SLOT_MEAN
                               : v1::LOSS_REDUCTION_TOKEN_MEAN);
  request.mutable_router_loss()->set_scope(
      single ? v1::ROUTER_LOSS_SCOPE_SLOT : v1::ROUTER_LOSS_SCOPE_BATCH);
  request.set_background_saves(options_.background_saves &&
                               options_.save_steps > 0 &&
                               options_.save_steps < counts_.total_steps);
  absl::StatusOr<v1::Run> run = client_.CreateRun(request);
  if (absl::IsFailedPrecondition(run.status())) {
    OCTET_ASSIGN_OR_RETURN(const bool ended, EndRunLeftOpen());
    if (ended) run = client_.CreateRun(request);
  }
  if (!request.background_saves() || !absl::IsResourceExhausted(run.status())) {
    return run;
  }
  const absl::Status refusal = run.status();
  request.set_background_saves(false);
  run = client_.CreateRun(request);
  if (run.ok() && observer_.on_note) {
    observer_.on_note(absl::StrCat("steps wait while a checkpoint is written: ",
                                   refusal.message()));
  }
  return run;
}

absl::StatusOr<bool> TrainJob::EndRunLeftOpen() {
  OCTET_ASSIGN_OR_RETURN(const v1::ListRunsResponse list,
                         client_.ListRuns(v1::ListRunsRequest()));
  const std::string prefix = RunIdPrefix(options_.output_dir);
  for (const v1::Run& run : list.runs()) {
    if (run.state() != v1::RUN_STATE_OPEN ||
        !absl::StartsWith(run.run_id(), prefix)) {
      continue;
    }
    const absl::Time deadline = absl::Now() + kEndTimeout;
    absl::Status ended = EndIfOpen(run.run_id());
    while (!ended.ok() && absl::Now() < deadline) {
      absl::SleepFor(kEndRetry);
      ended = EndIfOpen(run.run_id());
    }
    OCTET_RETURN_IF_ERROR(ended);
    if (observer_.on_note) {
      observer_.on_note(absl::StrCat("ended run '", run.run_id(),
                                     "', which an earlier command left open"));
    }
    return true;
  }
  return false;
}

absl::Status TrainJob::EndIfOpen(const std::string& run_id) {
  v1::GetRunRequest get;
  get.set_run_id(run_id);
  OCTET_ASSIGN_OR_RETURN(const v1::Run run, client_.GetRun(get));
  if (run.state() != v1::RUN_STATE_OPEN) return absl::OkStatus();
  v1::EndRunRequest end;
  end.set_run_id(run_id);
  end.set_seq_no(run.last_seq_no() + 1);
  return client_.EndRun(end).status();
}

void TrainJob::LeaveRun() {
  if (run_.run_id().empty()) return;
  for (int i = 0; i < kLeaveAttempts; ++i) {
    if (EndIfOpen(run_.run_id()).ok()) return;
  }
}

}  // namespace octet
