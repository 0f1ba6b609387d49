#include "coordinator/active_request.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/status_macros.h"

namespace octet {
namespace {

bool NeedsHistory(const v1::SampleSpec& sample) {
  return sample.repetition_penalty() != 1 || sample.presence_penalty() != 0 ||
         sample.frequency_penalty() != 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<GenerateRequest>> GenerateRequest::Create(
    GenerateSpec spec, std::shared_ptr<GenerateQueue> queue,
    const Tokenizer& tokenizer, absl::Time arrival) {
  std::unique_ptr<GenerateRequest> request(
      new GenerateRequest(std::move(spec), std::move(queue), arrival));
  for (int32_t i = 0; i < request->num_sequences(); ++i) {
    OCTET_ASSIGN_OR_RETURN(Continuation continuation,
                           Continuation::Create(tokenizer, request->spec_));
    request->continuations_.push_back(std::move(continuation));
  }
  return request;
}

GenerateRequest::GenerateRequest(GenerateSpec spec,
                                 std::shared_ptr<GenerateQueue> queue,
                                 absl::Time arrival)
    : ActiveRequest(spec.request_id, spec.deadline, arrival),
      spec_(std::move(spec)),
      queue_(std::move(queue)),
      routes_(spec_.return_routes ? spec_.num_continuations : 0),
      times_(spec_.num_continuations),
      num_open_(spec_.num_continuations) {}

int32_t GenerateRequest::num_prompt_tokens() const {
  return static_cast<int32_t>(spec_.prompt.size());
}

int32_t GenerateRequest::max_tokens() const {
  return num_prompt_tokens() + spec_.max_new_tokens;
}

NewSequence GenerateRequest::MakeSequence(int32_t) const {
  NewSequence sequence;
  sequence.tokens = spec_.prompt;
  sequence.max_tokens = max_tokens();
  sequence.compute_all = spec_.return_routes;
  return sequence;
}

void GenerateRequest::OnFirstScheduled(int32_t idx, absl::Time now) {
  started_ = true;
  times_[idx].first_scheduled = now;
}

void GenerateRequest::FillChunk(int32_t idx, const Sequence& sequence,
                                const ScheduledChunk& scheduled,
                                v1::SequenceChunk* chunk) const {
  chunk->set_return_routes(spec_.return_routes);
  if (!scheduled.reaches_end) return;
  v1::SampleSpec* sample = chunk->mutable_sample();
  *sample = spec_.sample;
  sample->set_seed(ContinuationSeed(spec_.sample.seed(), idx));
  if (continuations_[idx].num_tokens() < spec_.min_new_tokens) {
    sample->mutable_banned_ids()->Add(spec_.banned_ids.begin(),
                                      spec_.banned_ids.end());
  }
  if (NeedsHistory(spec_.sample)) {
    sample->mutable_history()->Add(sequence.tokens.begin(),
                                   sequence.tokens.end());
    sample->set_num_prompt_tokens(num_prompt_tokens());
  }
}

void GenerateRequest::TakeRoutes(int32_t idx, const v1::SequenceChunk& sent,
                                 const v1::SlotRoutes& routes) {
  routes_[idx].Put(sent.start_position(), sent.token_ids_size(), routes);
}

bool GenerateRequest::TakeResult(int32_t idx, const v1::SequenceResult& result,
                                 const Sequence& sequence, absl::Time now) {
  Continuation& continuation = continuations_[idx];
  if (continuation.num_tokens() == 0) times_[idx].first_token = now;
  v1::GenerateResponse chunk;
  chunk.set_request_id(request_id());
  chunk.set_index(idx);
  if (idx == 0) num_cached_ = sequence.num_cached;
  if (first_chunk_) FillFirstChunk(&chunk);
  continuation.Push(result.token_id(), result.sampled(), &chunk);
  if (continuation.finished()) {
    FillTimings(times_[idx], now, chunk.mutable_timings());
    if (spec_.return_routes) *chunk.mutable_routes() = routes_[idx].Take();
    if (--num_open_ == 0) {
      v1::Usage* usage = chunk.mutable_usage();
      usage->set_prompt_tokens(num_prompt_tokens());
      usage->set_cached_tokens(num_cached_);
      for (const Continuation& each : continuations_) {
        usage->set_completion_tokens(usage->completion_tokens() +
                                     each.num_tokens());
      }
    }
  }
  if (!queue_->Push(std::move(chunk))) pause_ = true;
  if (num_open_ == 0) queue_->Close(absl::OkStatus());
  return continuation.finished();
}

void GenerateRequest::FillFirstChunk(v1::GenerateResponse* chunk) {
  first_chunk_ = false;
  chunk->set_seed(spec_.sample.seed());
  if (!spec_.echo) return;
  chunk->set_prompt_text(spec_.prompt_text);
  chunk->mutable_prompt_token_ids()->Add(spec_.prompt.begin(),
                                         spec_.prompt.end());
}

void GenerateRequest::FillTimings(const Times& times, absl::Time now,
                                  v1::Timings* timings) const {
  timings->set_queue_seconds(
      absl::ToDoubleSeconds(times.first_scheduled - arrival()));
  timings->set_prefill_seconds(
      absl::ToDoubleSeconds(times.first_token - times.first_scheduled));
  timings->set_decode_seconds(absl::ToDoubleSeconds(now - times.first_token));
}

ScoreRequestState::ScoreRequestState(ScoreSpec spec, ScoreDone done,
                                     std::string request_id,
                                     const Tokenizer& tokenizer,
                                     absl::Time arrival)
    : ActiveRequest(std::move(request_id), spec.deadline, arrival),
      spec_(std::move(spec)),
      done_(std::move(done)),
      tokenizer_(tokenizer) {}

int32_t ScoreRequestState::num_prompt_tokens() const {
  return static_cast<int32_t>(spec_.tokens.size());
}

NewSequence ScoreRequestState::MakeSequence(int32_t) const {
  NewSequence sequence;
  sequence.tokens = spec_.tokens;
  sequence.max_tokens = num_prompt_tokens();
  sequence.score = true;
  return sequence;
}

void ScoreRequestState::FillChunk(int32_t, const Sequence& sequence,
                                  const ScheduledChunk& scheduled,
                                  v1::SequenceChunk* chunk) const {
  v1::ScoreSpec* score = chunk->mutable_score();
  score->set_num_logprobs(spec_.num_logprobs);
  for (int32_t i = 0; i < scheduled.num_tokens; ++i) {
    // After a preemption, what was delivered is not asked for again.
    const int32_t next = scheduled.start + i + 1;
    const bool asked = next < num_prompt_tokens() &&
                       next > static_cast<int32_t>(scores_.size());
    score->add_target_ids(asked ? sequence.tokens[next] : -1);
  }
}

bool ScoreRequestState::TakeResult(int32_t, const v1::SequenceResult& result,
                                   const Sequence& sequence, absl::Time) {
  scores_.insert(scores_.end(), result.scored().begin(), result.scored().end());
  if (sequence.num_uncomputed() > 0) return false;
  Complete(sequence);
  return true;
}

void ScoreRequestState::Complete(const Sequence& sequence) {
  v1::ScoreResponse response;
  response.mutable_token_ids()->Add(spec_.tokens.begin(), spec_.tokens.end());
  double sum = 0;
  for (size_t i = 0; i < spec_.tokens.size(); ++i) {
    const v1::PositionLogprobs first;
    const v1::PositionLogprobs& position = i == 0 ? first : scores_[i - 1];
    FillTokenDetail(tokenizer_, spec_.tokens[i], position,
                    response.add_tokens());
    sum += position.logprob();
  }
  response.set_sum_logprob(sum);
  const size_t num_scored = scores_.size();
  response.set_perplexity(num_scored == 0 ? 1 : std::exp(-sum / num_scored));
  response.mutable_usage()->set_prompt_tokens(num_prompt_tokens());
  response.mutable_usage()->set_cached_tokens(sequence.num_cached);
  done_(std::move(response));
}

}  // namespace octet
