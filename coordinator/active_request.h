// A request that the engine works on: what its sequences ask of a step, and
// what it does with what comes back. Two kinds: generate and score.
// Used by the step loop's thread alone.
#ifndef OCTET_COORDINATOR_ACTIVE_REQUEST_H_
#define OCTET_COORDINATOR_ACTIVE_REQUEST_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/continuation.h"
#include "coordinator/message_queue.h"
#include "coordinator/request.h"
#include "coordinator/route_log.h"
#include "coordinator/scheduler.h"
#include "proto/inference.pb.h"
#include "proto/worker.pb.h"
#include "text/tokenizer.h"

namespace octet {

using GenerateQueue = MessageQueue<v1::GenerateResponse>;
using ScoreDone = std::function<void(absl::StatusOr<v1::ScoreResponse>)>;

class ActiveRequest {
 public:
  ActiveRequest(std::string request_id, absl::Time deadline, absl::Time arrival)
      : request_id_(std::move(request_id)),
        deadline_(deadline),
        arrival_(arrival) {}
  virtual ~ActiveRequest() = default;

  const std::string& request_id() const { return request_id_; }
  absl::Time deadline() const { return deadline_; }
  absl::Time arrival() const { return arrival_; }
  bool started() const { return started_; }

  virtual int32_t num_prompt_tokens() const = 0;
  // Prompt and generated tokens together.
  virtual int32_t max_tokens() const = 0;
  virtual int32_t num_sequences() const = 0;
  // The sequence `idx` of this request, without id and leader.
  virtual NewSequence MakeSequence(int32_t idx) const = 0;

  // Sequence `idx` is part of a step for the first time.
  virtual void OnFirstScheduled(int32_t idx, absl::Time now) = 0;
  // Adds sampling or scoring to a chunk of sequence `idx`.
  virtual void FillChunk(int32_t idx, const Sequence& sequence,
                         const ScheduledChunk& scheduled,
                         v1::SequenceChunk* chunk) const = 0;
  // The routes of a chunk that asked for them; before the chunk's TakeResult.
  virtual void TakeRoutes(int32_t /*idx*/, const v1::SequenceChunk& /*sent*/,
                          const v1::SlotRoutes& /*routes*/) {}
  // What came back for a chunk that is sampled or scored. True when the
  // sequence is done; when it is the request's last one, the client has been
  // told.
  virtual bool TakeResult(int32_t idx, const v1::SequenceResult& result,
                          const Sequence& sequence, absl::Time now) = 0;
  // True once after the client's queue filled up.
  virtual bool TakePause() { return false; }
  // Ends the request early; `status` is an error. Called at most once, and not
  // after the last sequence is done.
  virtual void Fail(const absl::Status& status) = 0;

 protected:
  bool started_ = false;

 private:
  const std::string request_id_;
  const absl::Time deadline_;
  const absl::Time arrival_;
};

class GenerateRequest : public ActiveRequest {
 public:
  static absl::StatusOr<std::unique_ptr<GenerateRequest>> Create(
      GenerateSpec spec, std::shared_ptr<GenerateQueue> queue,
      const Tokenizer& tokenizer, absl::Time arrival);

  int32_t num_prompt_tokens() const override;
  int32_t max_tokens() const override;
  int32_t num_sequences() const override { return spec_.num_continuations; }
  NewSequence MakeSequence(int32_t idx) const override;
  void OnFirstScheduled(int32_t idx, absl::Time now) override;
  void FillChunk(int32_t idx, const Sequence& sequence,
                 const ScheduledChunk& scheduled,
                 v1::SequenceChunk* chunk) const override;
  void TakeRoutes(int32_t idx, const v1::SequenceChunk& sent,
                  const v1::SlotRoutes& routes) override;
  bool TakeResult(int32_t idx, const v1::SequenceResult& result,
                  const Sequence& sequence, absl::Time now) override;
  bool TakePause() override { return std::exchange(pause_, false); }
  void Fail(const absl::Status& status) override { queue_->Close(status); }

 private:
  struct Times {
    absl::Time first_scheduled;
    absl::Time first_token;
  };

  GenerateRequest(GenerateSpec spec, std::shared_ptr<GenerateQueue> queue,
                  absl::Time arrival);
  void FillFirstChunk(v1::GenerateResponse* chunk);
  void FillTimings(const Times& times, absl::Time now,
                   v1::Timings* timings) const;

  const GenerateSpec spec_;
  const std::shared_ptr<GenerateQueue> queue_;
  std::vector<Continuation> continuations_;  // [n]
  std::vector<RouteLog> routes_;             // [n] with return_routes, else []
  std::vector<Times> times_;                 // [n]
  int32_t num_open_;
  int32_t num_cached_ = 0;
  bool first_chunk_ = true;
  bool pause_ = false;
};

class ScoreRequestState : public ActiveRequest {
 public:
  ScoreRequestState(ScoreSpec spec, ScoreDone done, std::string request_id,
                    const Tokenizer& tokenizer, absl::Time arrival);

  int32_t num_prompt_tokens() const override;
  int32_t max_tokens() const override { return num_prompt_tokens(); }
  int32_t num_sequences() const override { return 1; }
  NewSequence MakeSequence(int32_t idx) const override;
  void OnFirstScheduled(int32_t, absl::Time) override { started_ = true; }
  void FillChunk(int32_t idx, const Sequence& sequence,
                 const ScheduledChunk& scheduled,
                 v1::SequenceChunk* chunk) const override;
  bool TakeResult(int32_t idx, const v1::SequenceResult& result,
                  const Sequence& sequence, absl::Time now) override;
  void Fail(const absl::Status& status) override { done_(status); }

 private:
  void Complete(const Sequence& sequence);

  const ScoreSpec spec_;
  const ScoreDone done_;
  const Tokenizer& tokenizer_;
  std::vector<v1::PositionLogprobs> scores_;  // of tokens 1, 2, ... so far
};

}  // namespace octet

#endif  // OCTET_COORDINATOR_ACTIVE_REQUEST_H_
