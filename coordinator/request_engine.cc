#include "coordinator/request_engine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "coordinator/group_failure.h"
#include "coordinator/step_result_check.h"

namespace octet {
namespace {

Scheduler::Options SchedulerOptions(const RequestEngine::Options& options,
                                    const v1::Hello& hello) {
  Scheduler::Options result;
  for (const v1::RankInfo& rank : hello.topology().ranks()) {
    result.rank_blocks.push_back(static_cast<int32_t>(rank.num_kv_blocks()));
  }
  result.block_tokens = hello.topology().kv_block_tokens();
  result.max_step_tokens = hello.max_step_tokens();
  if (options.max_step_tokens > 0) {
    result.max_step_tokens =
        std::min(result.max_step_tokens, options.max_step_tokens);
  }
  result.max_running_per_rank = options.max_running_per_rank;
  result.prefix_cache = options.prefix_cache;
  return result;
}

v1::Event EventAt(absl::Time now) {
  v1::Event event;
  event.set_unix_seconds(absl::ToDoubleSeconds(now - absl::UnixEpoch()));
  return event;
}

}  // namespace

RequestEngine::RequestEngine(Options options, const Tokenizer& tokenizer,
                             EventHub& events)
    : options_(options), tokenizer_(tokenizer), events_(events) {}

void RequestEngine::Connect(const v1::Hello& hello, int64_t epoch,
                            absl::Time now) {
  OCTET_CHECK(!connected());
  hello_ = hello;
  epoch_ = epoch;
  scheduler_ = std::make_unique<Scheduler>(SchedulerOptions(options_, hello));
  v1::Event event = EventAt(now);
  event.mutable_group_ready()->set_epoch(epoch);
  event.mutable_group_ready()->set_world_size(hello.topology().ranks_size());
  events_.Publish(event);
}

void RequestEngine::Disconnect(const v1::GroupFailure& failure,
                               absl::Time now) {
  if (!connected()) return;
  OCTET_LOG(ERROR) << GroupFailureStatus(failure).message();
  last_failure_ = failure;
  in_flight_.reset();
  counters_.set_preemptions(counters_.preemptions() +
                            scheduler_->num_preemptions());
  scheduler_.reset();
  v1::Event event = EventAt(now);
  *event.mutable_group_failure() = failure;
  events_.Publish(event);
}

absl::Status RequestEngine::CheckAdmission(const ActiveRequest& request,
                                           int64_t epoch) const {
  OCTET_RETURN_IF_ERROR(refusal_);
  if (!connected() || epoch != epoch_) {
    return absl::UnavailableError("no worker group is connected");
  }
  if (request_ids_.contains(request.request_id())) {
    return absl::AlreadyExistsError(
        absl::StrCat("request_id is '", request.request_id(),
                     "', which another running request has"));
  }
  const int32_t num_waiting =
      static_cast<int32_t>(requests_.size()) - num_started_;
  if (num_waiting >= options_.max_waiting_requests) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the waiting queue is full: ", num_waiting, " requests wait, at most ",
        options_.max_waiting_requests, " may"));
  }
  return scheduler_->CheckFits(request.num_prompt_tokens(),
                               request.max_tokens());
}

void RequestEngine::SubmitGenerate(RequestKey key, int64_t epoch,
                                   GenerateSpec spec,
                                   std::shared_ptr<GenerateQueue> queue,
                                   absl::Time now) {
  auto request =
      GenerateRequest::Create(std::move(spec), queue, tokenizer_, now);
  if (!request.ok()) {
    queue->Close(request.status());
    return;
  }
  Admit(key, epoch, *std::move(request));
}

void RequestEngine::SubmitScore(RequestKey key, int64_t epoch, ScoreSpec spec,
                                ScoreDone done, absl::Time now) {
  Admit(key, epoch,
        std::make_unique<ScoreRequestState>(std::move(spec), std::move(done),
                                            absl::StrCat("score-", key),
                                            tokenizer_, now));
}

void RequestEngine::Admit(RequestKey key, int64_t epoch,
                          std::unique_ptr<ActiveRequest> request) {
  const absl::Status status = CheckAdmission(*request, epoch);
  if (!status.ok()) {
    request->Fail(status);
    return;
  }
  std::vector<SequenceId>& open = open_sequences_[key];
  for (int32_t i = 0; i < request->num_sequences(); ++i) {
    NewSequence sequence = request->MakeSequence(i);
    sequence.id = next_sequence_id_++;
    sequence.leader = i == 0 ? -1 : open.front();
    open.push_back(sequence.id);
    owners_[sequence.id] = {key, i};
    scheduler_->Add(std::move(sequence));
  }
  request_ids_.insert(request->request_id());
  requests_[key] = std::move(request);
}

void RequestEngine::CollectStats(StatsDone done) {
  if (!refusal_.ok()) {
    done(refusal_);
  } else if (!connected()) {
    done(absl::UnavailableError("no worker group is connected"));
  } else {
    stats_waiting_.push_back(std::move(done));
  }
}

void RequestEngine::Train(v1::TrainPlan call, TrainingRuns::Done done) {
  if (!refusal_.ok()) {
    done(refusal_);
  } else if (!connected()) {
    done(absl::UnavailableError("no worker group is connected"));
  } else {
    training_.Submit(std::move(call), std::move(done));
  }
}

void RequestEngine::Forget(RequestKey key) {
  const auto it = requests_.find(key);
  for (SequenceId id : open_sequences_[key]) {
    if (connected()) scheduler_->Remove(id);
    owners_.erase(id);
  }
  open_sequences_.erase(key);
  request_ids_.erase(it->second->request_id());
  num_started_ -= it->second->started();
  requests_.erase(it);
}

void RequestEngine::Cancel(RequestKey key) {
  const auto it = requests_.find(key);
  if (it == requests_.end()) return;
  it->second->Fail(absl::CancelledError("the client cancelled the request"));
  Forget(key);
}

void RequestEngine::Resume(RequestKey key) {
  const auto it = open_sequences_.find(key);
  if (it == open_sequences_.end()) return;
  for (SequenceId id : it->second) scheduler_->SetPaused(id, false);
}

void RequestEngine::FailAll(const absl::Status& status) {
  FailStats(status);
  training_.LoseGroup(status);
  while (!requests_.empty()) {
    const auto it = requests_.begin();
    it->second->Fail(status);
    Forget(it->first);
  }
}

void RequestEngine::FailStats(const absl::Status& status) {
  for (StatsDone& done : std::exchange(stats_waiting_, {})) done(status);
}

void RequestEngine::ExpireDeadlines(absl::Time now) {
  std::vector<RequestKey> expired;
  for (const auto& [key, request] : requests_) {
    if (request->deadline() <= now) expired.push_back(key);
  }
  for (RequestKey key : expired) {
    requests_[key]->Fail(absl::DeadlineExceededError(
        absl::StrCat("the request's deadline passed while it was ",
                     requests_[key]->started() ? "running" : "waiting")));
    Forget(key);
  }
}

absl::Time RequestEngine::next_wake_up() const {
  absl::Time earliest = absl::InfiniteFuture();
  if (connected() && !in_flight_.has_value()) {
    earliest = training_.next_save_check();
  }
  for (const auto& [key, request] : requests_) {
    earliest = std::min(earliest, request->deadline());
  }
  return earliest;
}

std::optional<v1::Plan> RequestEngine::NextPlan(absl::Time now) {
  if (!connected() || in_flight_.has_value()) return std::nullopt;
  InFlight next;
  if (!stats_waiting_.empty()) {
    next.plan.mutable_collect_expert_stats();
  } else if (std::optional<v1::TrainPlan> check =
                 training_.TakeSaveCheck(now)) {
    *next.plan.mutable_train() = *std::move(check);
  } else {
    // Training calls and forward steps take turns.
    const bool planned = trained_last_
                             ? PlanForward(now, &next) || PlanTraining(&next)
                             : PlanTraining(&next) || PlanForward(now, &next);
    if (!planned) return std::nullopt;
    trained_last_ = next.plan.has_train();
  }
  next.plan.set_step_id(next_step_id_++);
  next.since = now;
  in_flight_ = std::move(next);
  return in_flight_->plan;
}

bool RequestEngine::PlanTraining(InFlight* next) {
  std::optional<v1::TrainPlan> call = training_.TakeNext();
  if (!call.has_value()) return false;
  *next->plan.mutable_train() = *std::move(call);
  return true;
}

bool RequestEngine::PlanForward(absl::Time now, InFlight* next) {
  next->schedule = scheduler_->Schedule();
  ReportPreemptions(next->schedule, now);
  return AddChunks(next->schedule, now, next->plan.mutable_forward());
}

bool RequestEngine::AddChunks(const StepSchedule& schedule, absl::Time now,
                              v1::ForwardPlan* plan) {
  for (const ScheduledChunk& scheduled : schedule.chunks) {
    const Sequence& sequence = *scheduler_->Find(scheduled.id);
    const SequenceOwner owner = owners_.at(scheduled.id);
    ActiveRequest& request = *requests_.at(owner.key);
    if (sequence.first_step) {
      num_started_ += !request.started();
      request.OnFirstScheduled(owner.idx, now);
      counters_.set_cached_tokens(counters_.cached_tokens() +
                                  sequence.num_cached);
    }
    v1::SequenceChunk* chunk = plan->add_chunks();
    chunk->set_sequence_id(scheduled.id);
    chunk->set_home_rank(scheduled.rank);
    chunk->set_start_position(scheduled.start);
    const auto tokens = absl::MakeConstSpan(sequence.tokens)
                            .subspan(scheduled.start, scheduled.num_tokens);
    chunk->mutable_token_ids()->Add(tokens.begin(), tokens.end());
    const int32_t end = scheduled.start + scheduled.num_tokens;
    const int32_t block_tokens = hello_.topology().kv_block_tokens();
    const int32_t num_blocks = (end + block_tokens - 1) / block_tokens;
    chunk->mutable_block_ids()->Add(sequence.blocks.begin(),
                                    sequence.blocks.begin() + num_blocks);
    request.FillChunk(owner.idx, sequence, scheduled, chunk);
  }
  return !schedule.chunks.empty();
}

void RequestEngine::ReportPreemptions(const StepSchedule& schedule,
                                      absl::Time now) {
  for (const PreemptedSequence& preempted : schedule.preempted) {
    const SequenceOwner owner = owners_.at(preempted.id);
    v1::Event event = EventAt(now);
    event.mutable_preemption()->set_request_id(
        requests_.at(owner.key)->request_id());
    event.mutable_preemption()->set_rank(preempted.rank);
    events_.Publish(event);
  }
}

absl::Status RequestEngine::HandleResult(const v1::StepResult& result,
                                         absl::Time now) {
  OCTET_RETURN_IF_ERROR(
      CheckStepResult(in_flight_.has_value() ? &in_flight_->plan : nullptr,
                      result, hello_.model()));
  const InFlight done = *std::move(in_flight_);
  in_flight_.reset();
  counters_.set_steps(counters_.steps() + 1);
  if (done.plan.has_collect_expert_stats()) {
    for (StatsDone& stats_done : std::exchange(stats_waiting_, {})) {
      stats_done(result.expert_stats());
    }
    return absl::OkStatus();
  }
  if (done.plan.has_train()) {
    OCTET_ASSIGN_OR_RETURN(const bool weights_changed,
                           training_.HandleResult(result.train()));
    if (weights_changed) scheduler_->ForgetComputed();
    return absl::OkStatus();
  }
  absl::flat_hash_map<SequenceId, const v1::SequenceResult*> by_id;
  for (const v1::SequenceResult& sequence : result.sequences()) {
    by_id[sequence.sequence_id()] = &sequence;
  }
  scheduler_->Commit(done.schedule);
  for (const v1::SequenceChunk& sent : done.plan.forward().chunks()) {
    const auto it = by_id.find(sent.sequence_id());
    TakeChunk(sent, it == by_id.end() ? nullptr : it->second, now);
  }
  return absl::OkStatus();
}

void RequestEngine::TakeChunk(const v1::SequenceChunk& sent,
                              const v1::SequenceResult* result,
                              absl::Time now) {
  const auto it = owners_.find(sent.sequence_id());
  if (it == owners_.end()) return;  // cancelled while the step ran
  const SequenceOwner owner = it->second;
  const Sequence& sequence = *scheduler_->Find(sent.sequence_id());
  const int32_t num_prompt_tokens =
      std::clamp(sequence.num_prompt_tokens - sent.start_position(), 0,
                 sent.token_ids_size());
  counters_.set_prompt_tokens(counters_.prompt_tokens() + num_prompt_tokens);
  if (!WantsResult(sent)) return;
  ActiveRequest& request = *requests_.at(owner.key);
  if (sent.return_routes()) {
    request.TakeRoutes(owner.idx, sent, result->routes());
  }
  if (!sent.has_sample() && !sent.has_score()) return;
  const bool finished = request.TakeResult(owner.idx, *result, sequence, now);
  if (sent.has_sample()) {
    counters_.set_generation_tokens(counters_.generation_tokens() + 1);
    if (!finished) scheduler_->Append(sent.sequence_id(), result->token_id());
  }
  if (request.TakePause()) {
    for (SequenceId id : open_sequences_[owner.key]) {
      scheduler_->SetPaused(id, true);
    }
  }
  if (finished) FinishSequence(sent.sequence_id(), owner);
}

void RequestEngine::FinishSequence(SequenceId id, const SequenceOwner& owner) {
  const RequestKey key = owner.key;
  scheduler_->Remove(id);
  owners_.erase(id);
  std::vector<SequenceId>& open = open_sequences_[key];
  open.erase(std::find(open.begin(), open.end(), id));
  if (open.empty()) Forget(key);
}

void RequestEngine::FillInfo(v1::GetInfoResponse* info) const {
  *info = counters_;
  if (last_failure_.has_value()) *info->mutable_last_failure() = *last_failure_;
  info->set_requests_running(num_started_);
  info->set_requests_waiting(static_cast<int32_t>(requests_.size()) -
                             num_started_);
  if (!connected()) {
    info->set_state(last_failure_.has_value() ? v1::GROUP_STATE_FAILED
                                              : v1::GROUP_STATE_WAITING);
    return;
  }
  info->set_state(v1::GROUP_STATE_READY);
  *info->mutable_model() = hello_.model();
  info->set_preemptions(counters_.preemptions() +
                        scheduler_->num_preemptions());
  info->set_kv_blocks_total(scheduler_->blocks_total());
  info->set_kv_blocks_used(scheduler_->blocks_held());
}

}  // namespace octet
