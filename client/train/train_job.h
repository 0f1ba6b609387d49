// A training run from beginning to end, by the calls of octet.v1.Training: data
// in, steps, evaluation, logs, plots, checkpoints, resumption.
//
//   output_dir/trainer_log.jsonl, trainer_state.json, *_results.json
//             training_loss.{svg,png}, training_eval_loss.*, expert_load.*
//             checkpoint-N/   after N optimizer steps: state/ (SaveState), and
//                             the adapter of a LoRA run
//             the adapter or the full weights, at the end
//
// output_dir must be the same directory for this process and for the ranks. A
// checkpoint counts when its state/manifest.json is there, which is written
// last; a run that was killed goes on from the newest one, with the same data
// and, to the bit, the same numbers. All but the last one are written while the
// next steps run (background_saves); an older one goes when a newer one is
// complete.
//
// What a step is. A microbatch is `train_batch_size` rows; a step is
// `accumulation` of them, whatever the number of ranks, which share them out.
// Its loss is the seeds': the mean over microbatches of the mean over a
// microbatch's labels. Microbatches of one row have the same bits however
// `call_tokens` splits them into calls.
#ifndef OCTET_CLIENT_TRAIN_TRAIN_JOB_H_
#define OCTET_CLIENT_TRAIN_TRAIN_JOB_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/data/data_pipeline.h"
#include "client/schedule.h"
#include "client/train/trainer_log.h"
#include "client/training_client.h"
#include "proto/training.pb.h"

namespace octet {

struct TrainJobOptions {
  v1::CreateRunRequest run;  // reduction and scope are set by the job
  std::string output_dir;    // absolute; exists
  int train_batch_size = 8;  // rows of a microbatch
  int eval_batch_size = 8;
  int accumulation = 1;
  // A microbatch's rows are padded with it, not learnt, to the longest of them,
  // and so it counts in the router's losses.
  std::optional<int32_t> padding_id;
  double num_epochs = 3;
  int64_t max_steps = 0;  // 0: by epochs
  ScheduleKind schedule = ScheduleKind::kLinear;
  int64_t warmup_steps = 0;
  double warmup_ratio = 0;
  v1::AdamWConfig adamw;        // learning_rate is the peak
  int64_t call_tokens = 16384;  // of one call, over all ranks: more rows of a
                                // step than this go in several calls
  int logging_steps = 500;
  bool logging_first_step = false;
  int64_t save_steps = 500;      // 0: only at the end and when stopped
  int save_total_limit = 0;      // checkpoints kept; 0: all
  bool background_saves = true;  // where memory has room for the copy
  int64_t eval_steps = 0;        // 0: only at the end
  bool eval_on_start = false;
  std::string resume_from;  // a checkpoint; empty: from the beginning
  // The directory's checkpoints are removed as soon as the run is created.
  bool overwrite = false;
};

// Told after every step, and asked whether to go on.
struct TrainProgress {
  int64_t step = 0;
  int64_t total_steps = 0;
  double loss = 0;  // of this step
  double tokens_per_second = 0;
  absl::Duration elapsed;
  absl::Duration remaining;
};
struct TrainObserver {
  std::function<void(const v1::Run&)> on_run;  // created; its memory plan
  std::function<void(const TrainProgress&)> on_step;
  std::function<void(const std::string&)> on_note;  // a line for the person
  std::function<bool()> stop;
};

struct TrainOutcome {
  int64_t steps = 0;
  bool stopped = false;              // by the observer; the state is saved
  std::optional<double> train_loss;  // mean over this process's steps, if any
  double eval_loss = 0;              // NaN without validation
};

// The newest complete checkpoint-N of a directory; empty when there is none.
std::string NewestCheckpoint(const std::string& output_dir);
// Is a directory empty, or has only what a run leaves that was killed before
// its first checkpoint?
bool HasNothingToLose(const std::string& output_dir);

class TrainJob {
 public:
  // The references must outlive it.
  TrainJob(TrainJobOptions options, DataPipeline& data, TrainingClient& client,
           TrainObserver observer);

  absl::StatusOr<TrainOutcome> Run();

 private:
  struct StepSums;

  absl::StatusOr<TrainOutcome> RunSteps();
  absl::Status Begin();
  absl::StatusOr<v1::Run> CreateRun();
  // Ends what a killed command with this output directory left open; false:
  // there was none.
  absl::StatusOr<bool> EndRunLeftOpen();
  absl::Status EndIfOpen(const std::string& run_id);
  void LeaveRun();
  absl::Status LoadCheckpoint();
  absl::Status RemoveAllCheckpoints();
  absl::Status RestoreClientState(const std::string& text);
  std::string ClientState() const;
  absl::StatusOr<std::vector<v1::TrainingSlot>> NextMicrobatch();
  absl::Status ForwardBackward(std::vector<v1::TrainingSlot> slots,
                               StepSums* sums);
  absl::Status ComputeGradients(StepSums* sums);
  absl::Status Step();
  absl::Status Log(bool force);
  absl::StatusOr<double> Evaluate();
  // background: answers when the state has been copied, if the run can.
  absl::Status SaveCheckpoint(bool background);
  // What has become of the checkpoint that was being written?
  absl::Status FollowSave();
  absl::Status CompleteCheckpoint(const std::string& path);
  absl::Status RemoveOldCheckpoints();
  absl::Status ExportTo(const std::string& dir);
  absl::Status WritePlots();
  absl::Status Finish();
  double NextLearningRate() const;
  double Epoch() const;
  double TokensPerSecond() const;

  const TrainJobOptions options_;
  DataPipeline& data_;
  TrainingClient& client_;
  const TrainObserver observer_;

  v1::Run run_;
  int64_t seq_no_ = 0;  // of the last call
  StepCounts counts_;
  Schedule schedule_;
  PlateauSchedule plateau_;
  std::unique_ptr<TrainerLog> log_;
  absl::Time start_;
  int64_t start_step_ = 0;
  int64_t step_ = 0;  // optimizer steps
  int64_t saved_step_ = -1;
  std::string writing_;         // checkpoint in the background, or empty
  int64_t slots_in_epoch_ = 0;  // taken of the present epoch
  std::vector<int64_t> expert_tokens_;  // [L, E] since the run began
  int num_experts_ = 0;

  // Since the last log.
  double window_loss_ = 0, window_aux_ = 0, window_z_ = 0;
  double last_grad_norm_ = 0, last_rate_ = 0;
  int64_t window_steps_ = 0, window_tokens_ = 0;
  absl::Time window_start_;
  // Of this process.
  double loss_sum_ = 0;
  int64_t rows_seen_ = 0;
  double eval_loss_ = 0;
};

}  // namespace octet

#endif  // OCTET_CLIENT_TRAIN_TRAIN_JOB_H_
