// A save of a run's state that goes on while the run trains.
//
// Begin copies what this rank owns to host memory, and a thread of this rank
// writes and hashes the copy. The thread makes no collectives and touches
// neither model nor backend: ranks learn of each other in Advance, which the
// group loop's thread calls from time to time. When all files are there rank 0
// is handed what the ranks wrote, and its thread writes the manifest and
// renames the directory.
//
//   kFiles   every rank writes its file
//   kCommit  rank 0 writes the manifest, last, and renames
//   done     complete, or failed: nothing is there then
//
// Threads: one at a time (the group loop's); the inner thread is joined before
// the save is done or goes.
#ifndef OCTET_WORKER_TRAIN_BACKGROUND_SAVE_H_
#define OCTET_WORKER_TRAIN_BACKGROUND_SAVE_H_

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/checkpoint/staged_directory.h"
#include "worker/checkpoint/training_manifest.h"
#include "worker/comm/communicator.h"
#include "worker/train/state_writer.h"
#include "worker/train/weight_trainer.h"

namespace octet {

// Host memory for a copy of what a rank owns of the optimizer's state; kept
// from one save to the next.
class StateSnapshot {
 public:
  // RESOURCE_EXHAUSTED names the size.
  absl::Status Take(WeightTrainer& trainer);
  // Element `begin` of an owned range (ShardMap::OwnedBy); kind: 0 weight, 1 m,
  // 2 v.
  const float* Values(int kind, size_t range, int64_t begin) const;

 private:
  std::unique_ptr<float[]> values_;  // [kinds, owned elements]
  int64_t num_elements_ = 0;         // owned
  std::vector<int64_t> offsets_;     // of each range, less its first element
};

class BackgroundSave {
 public:
  // Collective. `snapshot` outlives the save and is its own meanwhile.
  // bytes_per_second of this rank: 0 as fast as it goes. Errors are refusals
  // unless refusal.h says otherwise.
  static absl::StatusOr<std::unique_ptr<BackgroundSave>> Begin(
      WeightTrainer& trainer, const std::string& path,
      const RunProgress& progress, int64_t bytes_per_second,
      StateSnapshot& snapshot, int64_t step_id);

  // Stops writing; what is not complete is removed.
  ~BackgroundSave();
  BackgroundSave(const BackgroundSave&) = delete;
  BackgroundSave& operator=(const BackgroundSave&) = delete;

  // Collective, with the same `wait` on every rank; false: goes on. wait: until
  // it is done, at full speed from here on. An error is the communicator's.
  absl::StatusOr<bool> Advance(bool wait, int64_t step_id);

  // Once Advance has returned true; the same on every rank, and a refusal.
  const absl::Status& result() const { return result_; }

  int64_t num_bytes() const { return num_bytes_; }  // of all ranks

 private:
  enum class Stage { kFiles, kCommit, kDone };
  // How far the inner thread has come.
  enum class Reached { kNothing, kFile, kCommit };

  BackgroundSave(WeightTrainer& trainer, const std::string& path,
                 const RunProgress& progress, int64_t bytes_per_second,
                 const StateSnapshot& snapshot);

  // The inner thread.
  void Run();
  absl::Status WriteFile();
  // Waits until `num_bytes` more may be written; CANCELLED when it is to stop.
  absl::Status Pace(int64_t num_bytes);
  bool AwaitHandOver();
  void Report(Reached point, absl::Status status);

  // Collective: have all ranks' threads (`own` false: not this one's) come to
  // `point`?
  absl::StatusOr<bool> AllReached(Reached point, bool own, bool wait,
                                  const OpInfo& op);
  absl::Status AwaitOwn(Reached point, const OpInfo& op);
  absl::Status ThreadStatus();
  absl::Status HandOver(const OpInfo& op);
  void End(const absl::Status& result);

  Communicator& communicator_;
  const bool root_;  // rank 0
  const StagedDirectory directory_;
  const StateSnapshot& snapshot_;
  const int64_t bytes_per_second_;
  const TrainingManifest manifest_;  // without pieces
  int64_t num_bytes_ = 0;
  Stage stage_ = Stage::kFiles;
  absl::Status result_;

  // Of the inner thread; own_ is the caller's again from kFile on.
  OwnState own_;
  absl::Time start_;
  int64_t paced_bytes_ = 0;

  std::mutex mutex_;  // std: ThreadSanitizer sees it
  std::condition_variable changed_;
  // Guarded by mutex_.
  Reached reached_ = Reached::kNothing;
  absl::Status status_;  // of what was reached
  bool hurry_ = false;
  bool cancelled_ = false;
  bool handed_over_ = false;
  std::vector<std::string> pieces_;  // of all ranks

  std::thread thread_;
};

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_BACKGROUND_SAVE_H_
