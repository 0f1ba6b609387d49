// The loop of one rank: rank 0 takes plans from a source and hands them to the
// group, every rank runs them, rank 0 sends the results back.
//
// The loop ends on every rank: after a Shutdown plan or when the source has no
// more plans (rank 0 then tells the group), with TrainHandler::Finish; with an
// error when a collective fails, a rank cannot go on, or a plan is one that the
// group cannot run. The rank that fails aborts the group with its reason, and
// rank 0 sends it to the source, so nobody waits for long.
#ifndef OCTET_WORKER_SERVE_GROUP_LOOP_H_
#define OCTET_WORKER_SERVE_GROUP_LOOP_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/cluster.pb.h"
#include "proto/worker.pb.h"
#include "worker/comm/communicator.h"
#include "worker/serve/engine.h"

namespace octet {

// Where rank 0 gets its plans: the coordinator in production, a script in
// tests. Used by one thread.
class PlanSource {
 public:
  virtual ~PlanSource() = default;

  // Blocks until there is a plan; nullopt when there will be none any more.
  virtual std::optional<v1::Plan> Next() = 0;
  // What can no longer be delivered is dropped: Next() then says so.
  virtual void SendResult(const v1::StepResult& result) = 0;
  // The last call of a group that failed.
  virtual void SendFailure(const v1::GroupFailure& failure) = 0;
};

// Runs the training calls of a rank. Used by the loop's thread.
class TrainHandler {
 public:
  virtual ~TrainHandler() = default;

  // Every rank runs every call. A call that is refused is a result with a code,
  // the same on every rank, after which the group goes on; an error ends the
  // group. Rank 0's result is the answer.
  virtual absl::StatusOr<v1::TrainResult> Run(int64_t step_id,
                                              const v1::TrainPlan& call) = 0;
  // Every rank, when the loop ends in order: ends what goes on in the
  // background. Its error is the loop's.
  virtual absl::Status Finish(int64_t step_id) = 0;
};

// What `status` says about the end of a group, from the view of this rank.
v1::GroupFailure ToGroupFailure(const absl::Status& status,
                                const Communicator& communicator,
                                int64_t step_id);

class GroupLoop {
 public:
  // All of it outlives the loop. `source` is used on rank 0 only and may be
  // nullptr elsewhere. num_experts: E.
  GroupLoop(Communicator* communicator, Engine* engine, TrainHandler* training,
            int num_experts, PlanSource* source);

  absl::Status Run();

 private:
  absl::StatusOr<v1::Plan> NextPlan();
  absl::Status Execute(const v1::Plan& plan);
  v1::ExpertStats LocalExpertStats() const;

  Communicator* communicator_;
  Engine* engine_;
  TrainHandler* training_;
  const int num_experts_;
  PlanSource* source_;
};

}  // namespace octet

#endif  // OCTET_WORKER_SERVE_GROUP_LOOP_H_
