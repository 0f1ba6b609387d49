// The thread that drives the engine: everything that happens (requests,
// cancels, results, a group that comes or goes) is posted to it and handled in
// order. It never waits for a client or a step.
//
// Thread-safe. Calls before Start are handled after it; after Stop they are
// refused with UNAVAILABLE. Callbacks run on the loop's thread and must not
// block.
#ifndef OCTET_COORDINATOR_STEP_LOOP_H_
#define OCTET_COORDINATOR_STEP_LOOP_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/event_hub.h"
#include "coordinator/request.h"
#include "coordinator/request_engine.h"
#include "coordinator/worker_link.h"
#include "proto/cluster.pb.h"
#include "proto/worker.pb.h"
#include "text/tokenizer.h"

namespace octet {

class StepLoop final : public WorkerLink::Listener {
 public:
  // Of the worker link's messages.
  static constexpr int32_t kProtocolVersion = 1;

  struct Options {
    RequestEngine::Options engine;
    // A step that takes longer means that the service is not healthy.
    absl::Duration stall_after = absl::Seconds(30);
    // Chunks that wait for a client before its request is paused.
    size_t max_queued_chunks = 64;
    // The group's vocabulary must have this size; 0 = any that the tokenizer
    // fits into.
    int32_t expected_vocab_size = 0;
    // Called when the service begins or ceases to make progress.
    std::function<void(bool serving)> on_health;
  };

  // The group that requests are validated for.
  struct Group {
    int64_t epoch = 0;
    v1::ModelConfig model;
    v1::Topology topology;
  };

  // All references must outlive it.
  StepLoop(Options options, const Tokenizer& tokenizer, WorkerLink& link,
           EventHub& events);
  ~StepLoop() override;  // Stops

  void Start();
  // Refuses new requests; true when all others ended before `deadline`.
  bool Drain(absl::Time deadline);
  // Ends what is left with UNAVAILABLE, tells the group to shut down, and joins
  // the thread.
  void Stop();

  // UNAVAILABLE when no group is connected.
  absl::StatusOr<Group> group() const;
  // As of the last event; without version, model name and uptime.
  v1::GetInfoResponse info() const;

  // Returns the key to cancel with. Refusals come through `queue`.
  RequestKey Generate(int64_t epoch, GenerateSpec spec,
                      std::shared_ptr<GenerateQueue> queue);
  RequestKey Score(int64_t epoch, ScoreSpec spec, ScoreDone done);
  void Cancel(RequestKey key);
  void CollectStats(RequestEngine::StatsDone done);
  // TrainingRuns::Submit; UNAVAILABLE when no group is connected.
  void Train(v1::TrainPlan call, TrainingRuns::Done done);
  // Runs `look` on the loop's thread; false after Stop.
  bool LookAtTraining(std::function<void(const TrainingRuns&)> look);
  std::shared_ptr<GenerateQueue> MakeQueue() const {
    return std::make_shared<GenerateQueue>(options_.max_queued_chunks);
  }

  absl::Status CheckHello(const v1::Hello& hello) override;
  void OnGroupReady(int64_t epoch, v1::Hello hello) override;
  void OnStepResult(int64_t epoch, v1::StepResult result) override;
  void OnGroupLost(int64_t epoch, v1::GroupFailure failure) override;

 private:
  using Action = std::function<void(absl::Time now)>;

  // False after Stop: the action will not run.
  bool Post(Action action) ABSL_LOCKS_EXCLUDED(mu_);
  void Run();
  // What to do next; empty when the time is up or the loop is to end.
  std::vector<Action> TakeInbox(absl::Time wake_up) ABSL_LOCKS_EXCLUDED(mu_);
  bool TryEnd() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Time NextWakeUp() const;
  void SendNextPlan(absl::Time now);
  // Every request ends with UNAVAILABLE.
  void LoseGroup(const v1::GroupFailure& failure, absl::Time now);
  void PublishState(absl::Time now) ABSL_LOCKS_EXCLUDED(mu_);

  const Options options_;
  const Tokenizer& tokenizer_;
  WorkerLink& link_;
  std::atomic<RequestKey> next_key_{1};
  std::thread thread_;

  // Of the loop's thread alone.
  RequestEngine engine_;
  Group current_group_;
  bool serving_ = false;

  mutable absl::Mutex mu_;
  std::vector<Action> inbox_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  bool idle_ ABSL_GUARDED_BY(mu_) = true;
  Group group_ ABSL_GUARDED_BY(mu_);  // epoch 0 = none
  v1::GetInfoResponse info_ ABSL_GUARDED_BY(mu_);
};

}  // namespace octet

#endif  // OCTET_COORDINATOR_STEP_LOOP_H_
