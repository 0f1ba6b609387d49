// What a training run writes beside its weights, with the names that the seeds
// (and so their tools) use:
//
//   trainer_log.jsonl    a line per log: current_steps, total_steps, loss,
//                        eval_loss, learning_rate, epoch, percentage,
//                        elapsed_time, remaining_time ("h:mm:ss"), and ours:
//                        aux_loss, z_loss, grad_norm, tokens_per_second
//   trainer_state.json   log_history, global_step, max_steps, epoch, ...
//   train_results.json, eval_results.json, all_results.json
//
// One thread at a time. Files appear whole (temporary name, rename), but for
// the log, to which lines are added.
#ifndef OCTET_CLIENT_TRAIN_TRAINER_LOG_H_
#define OCTET_CLIENT_TRAIN_TRAINER_LOG_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace octet {

// One line. What is absent is null in the log.
struct LogEntry {
  int64_t step = 0;  // optimizer steps so far
  double epoch = 0;
  std::optional<double> loss;  // mean over the steps since the last entry
  std::optional<double> eval_loss;
  std::optional<double> learning_rate;
  std::optional<double> aux_loss;
  std::optional<double> z_loss;
  std::optional<double> grad_norm;
  std::optional<double> tokens_per_second;
};

// "h:mm:ss", rounded down; negative durations count as zero.
std::string FormatHours(absl::Duration duration);

class TrainerLog {
 public:
  static constexpr char kFile[] = "trainer_log.jsonl";

  // A log with the entries of a run that goes on: the file is written anew from
  // them, so that lines after the state that was loaded are gone.
  static absl::StatusOr<TrainerLog> Open(const std::string& output_dir,
                                         int64_t total_steps,
                                         std::vector<LogEntry> history);

  // Adds a line. `elapsed` is the time of this process's training, which
  // remaining_time is estimated from: `start_step` is where it began.
  absl::Status Add(const LogEntry& entry, absl::Duration elapsed,
                   int64_t start_step);

  const std::vector<LogEntry>& history() const { return history_; }

  // trainer_state.json.
  absl::Status WriteState(double num_epochs) const;
  // `name`_results.json with these numbers, which also join all_results.json.
  absl::Status WriteResults(const std::string& name,
                            const std::map<std::string, double>& numbers) const;

 private:
  TrainerLog(std::string output_dir, int64_t total_steps)
      : output_dir_(std::move(output_dir)), total_steps_(total_steps) {}

  std::string output_dir_;
  int64_t total_steps_;
  std::vector<LogEntry> history_;
};

// The history as JSON text and back, for the state that is saved with a
// checkpoint. INVALID_ARGUMENT when the text is not such a history.
std::string HistoryToJson(const std::vector<LogEntry>& history);
absl::StatusOr<std::vector<LogEntry>> HistoryFromJson(const std::string& text);

}  // namespace octet

#endif  // OCTET_CLIENT_TRAIN_TRAINER_LOG_H_
