// The training runs as the coordinator knows them: which calls may run next,
// in which order, and the answers to calls that are repeated. The model itself
// and all that a run holds live in the worker group.
//
// A call with a number (`seq_no`) is accepted when the number is one more than
// that of the call before it, so calls may be sent without waiting for answers.
// A call that the group refuses does not use up its number: those accepted
// after it are refused too, and none of them ran.
//
// While a run's state is being written in the background the group is asked
// from time to time how far it is, as its ranks learn from each other only in a
// plan.
//
// Part of the request engine: single-threaded, without clock or network.
// Tested in tests/coordinator/training_runs_test.cc.
#ifndef OCTET_COORDINATOR_TRAINING_RUNS_H_
#define OCTET_COORDINATOR_TRAINING_RUNS_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/training.pb.h"
#include "proto/worker.pb.h"

namespace octet {

class TrainingRuns {
 public:
  // An error, or a result whose code is 0.
  using Done = std::function<void(absl::StatusOr<v1::TrainResult>)>;

  // Answers kept for calls that are repeated, the newest ones.
  static constexpr size_t kKeptAnswers = 8;
  // Between questions after a save in the background.
  static constexpr absl::Duration kSaveCheckInterval = absl::Milliseconds(200);

  // Calls `done` at once for a call that is refused or repeated, else when the
  // group has answered. An empty run_id of a CreateRun is filled in.
  void Submit(v1::TrainPlan call, Done done);

  // The call to send next, which is then in flight; nullopt when there is none,
  // or one is in flight.
  std::optional<v1::TrainPlan> TakeNext();
  // The same for a question after a save in the background, when it is time.
  std::optional<v1::TrainPlan> TakeSaveCheck(absl::Time now);
  // When that will be; infinite when nothing is being written.
  absl::Time next_save_check() const {
    return IsSaving() ? next_check_ : absl::InfiniteFuture();
  }
  // The answer to the call in flight. Tells whether the weights that serve are
  // other ones than before. INTERNAL: the answer is of another kind than the
  // call.
  absl::StatusOr<bool> HandleResult(const v1::TrainResult& result);

  // The group has ended: calls end with `status`, open runs are lost.
  void LoseGroup(const absl::Status& status);

  absl::StatusOr<v1::Run> Get(const std::string& run_id) const;
  v1::ListRunsResponse List() const;

  // No call waits, and nothing is being written.
  bool idle() const { return queue_.empty() && !IsSaving(); }

 private:
  struct Call {
    v1::TrainPlan plan;
    std::string run_id;
    int64_t seq_no = 0;  // 0: a call without a number
    std::vector<Done> done;
  };
  struct Answer {
    int64_t seq_no = 0;
    uint64_t fingerprint = 0;  // of the request
    v1::TrainResult result;
  };
  struct Record {
    v1::Run run;
    int64_t last_accepted = 0;
    std::deque<Answer> answers;
  };

  bool IsSaving() const;
  absl::Status CheckCreate(const v1::CreateRunRequest& request) const;
  void SubmitCreate(v1::TrainPlan call, Done done);
  void SubmitNumbered(Record& record, Call call, Done done);
  absl::StatusOr<Record*> FindOpen(const std::string& run_id);
  void Succeed(Call& call, const v1::TrainResult& result);
  void Refuse(Call& call, const absl::Status& status);

  std::map<std::string, Record> runs_;
  std::deque<Call> queue_;  // the front is in flight when in_flight_
  bool in_flight_ = false;
  bool checking_ = false;  // a question after a save is in flight
  absl::Time next_check_ = absl::InfinitePast();
  int64_t num_drawn_ = 0;  // run ids
};

}  // namespace octet

#endif  // OCTET_COORDINATOR_TRAINING_RUNS_H_
