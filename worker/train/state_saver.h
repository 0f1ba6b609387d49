// The saves of a run: at once, or one at a time in the background.
//
// Every rank makes the same calls; all but last() and Touches are collective.
// Errors are refusals unless refusal.h says otherwise. Threads: one at a time.
#ifndef OCTET_WORKER_TRAIN_STATE_SAVER_H_
#define OCTET_WORKER_TRAIN_STATE_SAVER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/training.pb.h"
#include "worker/train/background_save.h"
#include "worker/train/state_writer.h"
#include "worker/train/weight_trainer.h"

namespace octet {

class StateSaver {
 public:
  // background: the run's memory plan has room for a copy (background_saves).
  // bytes_per_second: BackgroundSave::Begin.
  StateSaver(bool background, int64_t bytes_per_second)
      : background_(background), bytes_per_second_(bytes_per_second) {}

  // progress.client_state is the request's.
  absl::StatusOr<v1::SaveStateResponse> Save(
      WeightTrainer& trainer, const v1::SaveStateRequest& request,
      const RunProgress& progress, int64_t step_id);

  // Waits for the save in the background. The error of one that failed is told
  // once, by the first Settle or Save after it.
  absl::Status Settle(int64_t step_id);
  // How far is it? Does not wait; an error is the communicator's.
  absl::Status Check(int64_t step_id);

  // Is there a save under way into, around or inside of `path`?
  bool Touches(const std::string& path) const;

  // The newest save that began.
  const std::optional<v1::StateSave>& last() const { return last_; }

 private:
  absl::Status Advance(bool wait, int64_t step_id);

  const bool background_;
  const int64_t bytes_per_second_;
  StateSnapshot snapshot_;  // before who reads it
  std::unique_ptr<BackgroundSave> save_;
  absl::Status untold_;  // error of a save that no call has reported
  std::optional<v1::StateSave> last_;
};

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_STATE_SAVER_H_
