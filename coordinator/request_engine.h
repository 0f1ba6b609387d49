// What the coordinator knows and does, without threads, clock or network: the
// requests, the worker group and its scheduler, and at most one step in flight.
// Time is passed in. The step loop (step_loop.h) drives it from one thread.
//
//   Connect -> { NextPlan -> send it -> HandleResult }* -> Disconnect
//
// Tested in tests/coordinator/step_loop_test.cc and, through gRPC, in
// tests/coordinator/coordinator_*_test.cc.
#ifndef OCTET_COORDINATOR_REQUEST_ENGINE_H_
#define OCTET_COORDINATOR_REQUEST_ENGINE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/active_request.h"
#include "coordinator/event_hub.h"
#include "coordinator/scheduler.h"
#include "coordinator/training_runs.h"
#include "proto/cluster.pb.h"
#include "proto/worker.pb.h"
#include "text/tokenizer.h"

namespace octet {

// Names a request inside this process; never used twice.
using RequestKey = int64_t;

class RequestEngine {
 public:
  using StatsDone = std::function<void(absl::StatusOr<v1::ExpertStats>)>;

  struct Options {
    int32_t max_waiting_requests = 256;  // admitted, but in no step so far
    int32_t max_running_per_rank = 64;   // sequences
    int32_t max_step_tokens = 0;         // per rank; 0 = what the group holds
    bool prefix_cache = true;
  };

  // `tokenizer` and `events` must outlive it.
  RequestEngine(Options options, const Tokenizer& tokenizer, EventHub& events);

  // A group is ready. REQUIRES: none is connected.
  void Connect(const v1::Hello& hello, int64_t epoch, absl::Time now);
  // The group ended. Its requests are still there: FailAll is to follow.
  void Disconnect(const v1::GroupFailure& failure, absl::Time now);
  bool connected() const { return scheduler_ != nullptr; }
  int64_t epoch() const { return epoch_; }

  // `epoch` is the group that the spec was validated for. Refusals close the
  // queue, or call `done`, at once.
  void SubmitGenerate(RequestKey key, int64_t epoch, GenerateSpec spec,
                      std::shared_ptr<GenerateQueue> queue, absl::Time now);
  void SubmitScore(RequestKey key, int64_t epoch, ScoreSpec spec,
                   ScoreDone done, absl::Time now);
  void CollectStats(StatsDone done);
  // A call of the Training service; TrainingRuns::Submit.
  void Train(v1::TrainPlan call, TrainingRuns::Done done);
  const TrainingRuns& training() const { return training_; }
  // The client has gone, or reads again. Unknown keys are ignored.
  void Cancel(RequestKey key);
  void Resume(RequestKey key);
  // Requests from now on are refused with `status`.
  void Refuse(absl::Status status) { refusal_ = std::move(status); }
  bool refusing() const { return !refusal_.ok(); }
  void FailAll(const absl::Status& status);
  void ExpireDeadlines(absl::Time now);

  // The next step; nullopt when one is in flight or there is nothing to do.
  std::optional<v1::Plan> NextPlan(absl::Time now);
  // An error is a breach of protocol, after which the group is of no use.
  absl::Status HandleResult(const v1::StepResult& result, absl::Time now);

  bool idle() const {
    return requests_.empty() && training_.idle() && !in_flight_.has_value();
  }
  // When there is something to do though nothing happened: a request's
  // deadline, or a question to the group. May be infinite.
  absl::Time next_wake_up() const;
  // When the step in flight was sent; infinite when there is none, and for a
  // training call, which takes as long as its batch is large.
  absl::Time in_flight_since() const {
    return in_flight_.has_value() && !in_flight_->plan.has_train()
               ? in_flight_->since
               : absl::InfiniteFuture();
  }
  // All fields but the version, the model's name and the uptime.
  void FillInfo(v1::GetInfoResponse* info) const;

 private:
  struct InFlight {
    v1::Plan plan;
    StepSchedule schedule;
    absl::Time since;
  };
  struct SequenceOwner {
    RequestKey key;
    int32_t idx;  // within the request
  };

  absl::Status CheckAdmission(const ActiveRequest& request,
                              int64_t epoch) const;
  void Admit(RequestKey key, int64_t epoch,
             std::unique_ptr<ActiveRequest> request);
  void Forget(RequestKey key);
  void FailStats(const absl::Status& status);

  // False when there is nothing to plan.
  bool PlanTraining(InFlight* next);
  bool PlanForward(absl::Time now, InFlight* next);
  bool AddChunks(const StepSchedule& schedule, absl::Time now,
                 v1::ForwardPlan* plan);
  void ReportPreemptions(const StepSchedule& schedule, absl::Time now);
  void TakeChunk(const v1::SequenceChunk& sent,
                 const v1::SequenceResult* result, absl::Time now);
  void FinishSequence(SequenceId id, const SequenceOwner& owner);

  const Options options_;
  const Tokenizer& tokenizer_;
  EventHub& events_;

  // The group; meaningful while scheduler_ is set.
  v1::Hello hello_;
  int64_t epoch_ = 0;
  std::unique_ptr<Scheduler> scheduler_;
  std::optional<InFlight> in_flight_;
  std::optional<v1::GroupFailure> last_failure_;

  std::map<RequestKey, std::unique_ptr<ActiveRequest>> requests_;
  absl::flat_hash_map<RequestKey, std::vector<SequenceId>> open_sequences_;
  absl::flat_hash_set<std::string> request_ids_;
  absl::flat_hash_map<SequenceId, SequenceOwner> owners_;
  std::vector<StatsDone> stats_waiting_;
  TrainingRuns training_;
  bool trained_last_ = false;  // the last plan was a training call
  absl::Status refusal_;
  SequenceId next_sequence_id_ = 1;
  int64_t next_step_id_ = 1;
  int32_t num_started_ = 0;

  // Since the coordinator started.
  v1::GetInfoResponse counters_;
};

}  // namespace octet

#endif  // OCTET_COORDINATOR_REQUEST_ENGINE_H_
