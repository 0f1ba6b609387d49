#include "coordinator/training_runs.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace octet {
namespace {

using Kind = v1::TrainPlan::CallCase;
using Response = v1::TrainResult::ResponseCase;

// FNV-1a over the request's bytes.
uint64_t Fingerprint(const v1::TrainPlan& call) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : call.SerializeAsString()) {
    hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  }
  return hash;
}

struct RunCall {
  std::string run_id;
  int64_t seq_no = 0;    // as sent
  bool numbered = true;  // the call carries a number
};

template <typename Request>
RunCall Numbered(const Request& request) {
  return {request.run_id(), request.seq_no(), true};
}

RunCall Describe(const v1::TrainPlan& call) {
  switch (call.call_case()) {
    case Kind::kEndRun:
      return Numbered(call.end_run());
    case Kind::kForwardBackward:
      return Numbered(call.forward_backward());
    case Kind::kOptimStep:
      return Numbered(call.optim_step());
    case Kind::kZeroGrad:
      return Numbered(call.zero_grad());
    case Kind::kSaveState:
      return Numbered(call.save_state());
    case Kind::kLoadState:
      return Numbered(call.load_state());
    case Kind::kForward:
      return {call.forward().run_id(), 0, false};
    case Kind::kExportWeights:
      return {call.export_weights().run_id(), 0, false};
    case Kind::kCreateRun:
    case Kind::kCheckSave:
    case Kind::CALL_NOT_SET:
      break;
  }
  return {call.create_run().run_id(), 0, false};
}

Response ExpectedResponse(Kind kind) {
  switch (kind) {
    case Kind::kCreateRun:
    case Kind::kEndRun:
      return Response::kRun;
    case Kind::kForward:
    case Kind::kForwardBackward:
      return Response::kForward;
    case Kind::kOptimStep:
      return Response::kOptimStep;
    case Kind::kZeroGrad:
      return Response::kZeroGrad;
    case Kind::kSaveState:
      return Response::kSaveState;
    case Kind::kLoadState:
      return Response::kLoadState;
    case Kind::kExportWeights:
      return Response::kExportWeights;
    case Kind::kCheckSave:
    case Kind::CALL_NOT_SET:
      break;
  }
  return Response::RESPONSE_NOT_SET;
}

bool ChangesWeights(const v1::TrainPlan& call, const v1::TrainResult& result) {
  return call.has_create_run() || call.has_load_state() ||
         (call.has_optim_step() && !result.optim_step().skipped());
}

void TakeSave(const v1::TrainResult& result, v1::Run* run) {
  if (!result.has_save()) return;
  *run->mutable_last_save() = result.save();
  if (result.save().stage() == v1::SAVE_STAGE_COMPLETE) {
    run->set_last_state_path(result.save().path());
  }
}

bool IsBeingSaved(const v1::Run& run) {
  return run.state() == v1::RUN_STATE_OPEN &&
         run.last_save().stage() == v1::SAVE_STAGE_WRITING;
}

}  // namespace

absl::StatusOr<TrainingRuns::Record*> TrainingRuns::FindOpen(
    const std::string& run_id) {
  const auto it = runs_.find(run_id);
  if (it == runs_.end()) return Get(run_id).status();
  switch (it->second.run.state()) {
    case v1::RUN_STATE_LOST:
      return absl::UnavailableError(absl::StrCat(
          "run '", run_id,
          "' is lost: its worker group ended; create a run and load its last "
          "state"));
    case v1::RUN_STATE_ENDED:
      return absl::FailedPreconditionError(
          absl::StrCat("run_id is '", run_id, "', which has ended"));
    default:
      return &it->second;
  }
}

absl::StatusOr<v1::Run> TrainingRuns::Get(const std::string& run_id) const {
  const auto it = runs_.find(run_id);
  if (it != runs_.end()) return it->second.run;
  const auto append = [](std::string* out, const auto& entry) {
    absl::StrAppend(out, "'", entry.first, "'");
  };
  return absl::NotFoundError(absl::StrCat(
      "run_id is '", run_id, "', expected ",
      runs_.empty()
          ? "none, as no run was created"
          : absl::StrCat("one of ", absl::StrJoin(runs_, ", ", append))));
}

v1::ListRunsResponse TrainingRuns::List() const {
  v1::ListRunsResponse list;
  for (const auto& [id, record] : runs_) *list.add_runs() = record.run;
  return list;
}

void TrainingRuns::Submit(v1::TrainPlan call, Done done) {
  if (call.has_create_run()) {
    SubmitCreate(std::move(call), std::move(done));
    return;
  }
  const RunCall described = Describe(call);
  absl::StatusOr<Record*> record = FindOpen(described.run_id);
  if (!record.ok()) {
    // The answer to the EndRun that ended it may be asked for again.
    const auto it = runs_.find(described.run_id);
    if (it != runs_.end() && described.numbered) {
      for (const Answer& answer : it->second.answers) {
        if (answer.seq_no == described.seq_no &&
            answer.fingerprint == Fingerprint(call)) {
          done(answer.result);
          return;
        }
      }
    }
    done(record.status());
    return;
  }
  Call next{std::move(call), described.run_id, described.seq_no, {}};
  if (described.numbered) {
    SubmitNumbered(**record, std::move(next), std::move(done));
    return;
  }
  next.done.push_back(std::move(done));
  queue_.push_back(std::move(next));
}

void TrainingRuns::SubmitNumbered(Record& record, Call call, Done done) {
  if (call.seq_no == record.last_accepted + 1) {
    ++record.last_accepted;
    call.done.push_back(std::move(done));
    queue_.push_back(std::move(call));
    return;
  }
  const uint64_t fingerprint = Fingerprint(call.plan);
  const auto differs = [&] {
    done(absl::InvalidArgumentError(
        absl::StrCat("seq_no is ", call.seq_no,
                     ", which was another request before; expected the same "
                     "one, or ",
                     record.last_accepted + 1)));
  };
  for (const Answer& answer : record.answers) {
    if (answer.seq_no != call.seq_no) continue;
    if (answer.fingerprint == fingerprint) {
      done(answer.result);
    } else {
      differs();
    }
    return;
  }
  for (Call& waiting : queue_) {
    if (waiting.run_id != call.run_id || waiting.seq_no != call.seq_no ||
        call.seq_no == 0) {
      continue;
    }
    if (Fingerprint(waiting.plan) == fingerprint) {
      waiting.done.push_back(std::move(done));
    } else {
      differs();
    }
    return;
  }
  done(absl::FailedPreconditionError(absl::StrCat(
      "seq_no is ", call.seq_no, ", expected ", record.last_accepted + 1)));
}

absl::Status TrainingRuns::CheckCreate(
    const v1::CreateRunRequest& request) const {
  for (const auto& [id, record] : runs_) {
    if (record.run.state() != v1::RUN_STATE_OPEN) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("run '", id,
                     "' is open, expected none: the group holds "
                     "one model; end that run first"));
  }
  for (const Call& call : queue_) {
    if (!call.plan.has_create_run()) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        "run '", call.run_id, "' is being created, expected none"));
  }
  if (runs_.contains(request.run_id())) {
    return absl::AlreadyExistsError(absl::StrCat(
        "run_id is '", request.run_id(), "', which another run has had"));
  }
  return absl::OkStatus();
}

void TrainingRuns::SubmitCreate(v1::TrainPlan call, Done done) {
  v1::CreateRunRequest& request = *call.mutable_create_run();
  // A repeat, of one that was made or is on its way.
  const auto it = runs_.find(request.run_id());
  if (it != runs_.end() && it->second.run.state() == v1::RUN_STATE_OPEN &&
      it->second.run.config().SerializeAsString() ==
          request.SerializeAsString()) {
    v1::TrainResult result;
    *result.mutable_run() = it->second.run;
    done(std::move(result));
    return;
  }
  for (Call& waiting : queue_) {
    if (waiting.plan.has_create_run() && !request.run_id().empty() &&
        waiting.plan.SerializeAsString() == call.SerializeAsString()) {
      waiting.done.push_back(std::move(done));
      return;
    }
  }
  if (request.run_id().empty()) {
    do {
      request.set_run_id(absl::StrCat("run-", ++num_drawn_));
    } while (runs_.contains(request.run_id()));
  }
  const absl::Status status = CheckCreate(request);
  if (!status.ok()) {
    done(status);
    return;
  }
  Call next{std::move(call), "", 0, {}};
  next.run_id = next.plan.create_run().run_id();
  next.done.push_back(std::move(done));
  queue_.push_back(std::move(next));
}

std::optional<v1::TrainPlan> TrainingRuns::TakeNext() {
  if (in_flight_ || checking_ || queue_.empty()) return std::nullopt;
  in_flight_ = true;
  return queue_.front().plan;
}

bool TrainingRuns::IsSaving() const {
  return std::any_of(runs_.begin(), runs_.end(), [](const auto& entry) {
    return IsBeingSaved(entry.second.run);
  });
}

std::optional<v1::TrainPlan> TrainingRuns::TakeSaveCheck(absl::Time now) {
  if (in_flight_ || checking_ || now < next_save_check()) return std::nullopt;
  checking_ = true;
  next_check_ = now + kSaveCheckInterval;
  v1::TrainPlan check;
  check.mutable_check_save();
  return check;
}

absl::StatusOr<bool> TrainingRuns::HandleResult(const v1::TrainResult& result) {
  if (checking_) {
    checking_ = false;
    for (auto& [id, record] : runs_) {
      if (IsBeingSaved(record.run)) TakeSave(result, &record.run);
    }
    return false;
  }
  const Response expected = ExpectedResponse(queue_.front().plan.call_case());
  if (result.code() == 0 && result.response_case() != expected) {
    return absl::InternalError(
        absl::StrCat("the group answered a training call with kind ",
                     result.response_case(), ", expected ", expected));
  }
  Call call = std::move(queue_.front());
  queue_.pop_front();
  in_flight_ = false;
  const auto run = runs_.find(call.run_id);
  if (run != runs_.end()) TakeSave(result, &run->second.run);
  if (result.code() != 0) {
    Refuse(call, absl::Status(static_cast<absl::StatusCode>(result.code()),
                              result.message()));
    return false;
  }
  Succeed(call, result);
  return ChangesWeights(call.plan, result);
}

void TrainingRuns::Refuse(Call& call, const absl::Status& status) {
  if (call.seq_no > 0) {
    // What was sent after it counted on it.
    runs_.at(call.run_id).last_accepted = call.seq_no - 1;
    for (auto it = queue_.begin(); it != queue_.end();) {
      if (it->run_id != call.run_id || it->seq_no <= call.seq_no) {
        ++it;
        continue;
      }
      for (const Done& done : it->done) {
        done(absl::FailedPreconditionError(
            absl::StrCat("seq_no is ", it->seq_no, ", expected ", call.seq_no,
                         ", which was refused: ", status.message())));
      }
      it = queue_.erase(it);
    }
  }
  for (const Done& done : call.done) done(status);
}

void TrainingRuns::Succeed(Call& call, const v1::TrainResult& result) {
  Record& record = runs_[call.run_id];
  v1::TrainResult answer = result;
  switch (call.plan.call_case()) {
    case Kind::kCreateRun:
      record.run = result.run();
      record.run.set_run_id(call.run_id);
      record.run.set_state(v1::RUN_STATE_OPEN);
      *record.run.mutable_config() = call.plan.create_run();
      break;
    case Kind::kEndRun:
      record.run.set_state(v1::RUN_STATE_ENDED);
      break;
    case Kind::kForwardBackward:
      record.run.set_pending_slots(record.run.pending_slots() +
                                   call.plan.forward_backward().slots_size());
      break;
    case Kind::kOptimStep:
      record.run.set_optimizer_steps(result.optim_step().step());
      record.run.set_pending_slots(0);
      break;
    case Kind::kZeroGrad:
      record.run.set_pending_slots(0);
      break;
    case Kind::kLoadState:
      record.run.set_optimizer_steps(result.load_state().optimizer_steps());
      record.run.set_pending_slots(0);
      break;
    default:
      break;
  }
  if (call.seq_no > 0) record.run.set_last_seq_no(call.seq_no);
  if (answer.has_run()) *answer.mutable_run() = record.run;
  if (call.seq_no > 0) {
    record.answers.push_back({call.seq_no, Fingerprint(call.plan), answer});
    if (record.answers.size() > kKeptAnswers) record.answers.pop_front();
  }
  for (const Done& done : call.done) done(answer);
}

void TrainingRuns::LoseGroup(const absl::Status& status) {
  for (auto& [id, record] : runs_) {
    if (record.run.state() == v1::RUN_STATE_OPEN) {
      if (IsBeingSaved(record.run)) {
        v1::StateSave& save = *record.run.mutable_last_save();
        save.set_stage(v1::SAVE_STAGE_FAILED);
        save.set_error(absl::StrCat(
            save.path(), ": the worker group ended while it was written: ",
            status.message()));
      }
      record.run.set_state(v1::RUN_STATE_LOST);
      record.answers.clear();
    }
  }
  in_flight_ = checking_ = false;
  for (Call& call : std::exchange(queue_, {})) {
    for (const Done& done : call.done) done(status);
  }
}

}  // namespace octet
