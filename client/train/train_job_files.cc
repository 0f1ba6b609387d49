// The part of a training job that reads and writes files: checkpoints, the
// exported weights, plots, results.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/train/charts.h"
#include "client/train/train_job.h"
#include "nlohmann/json.hpp"

namespace octet {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr char kPrefix[] = "checkpoint-";
constexpr char kStaged[] = ".partial";  // what workers have not yet finished

// N of "checkpoint-N"; -1 for another name.
int64_t StepOf(const std::string& name) {
  if (name.rfind(kPrefix, 0) != 0) return -1;
  const char* begin = name.data() + sizeof(kPrefix) - 1;
  const char* end = name.data() + name.size();
  int64_t step = -1;
  const auto result = std::from_chars(begin, end, step);
  return result.ec == std::errc() && result.ptr == end ? step : -1;
}

// Steps of the checkpoints, rising: of all of them, and of the complete ones.
struct Checkpoints {
  std::vector<int64_t> all, complete;
};

Checkpoints FindCheckpoints(const std::string& output_dir) {
  Checkpoints found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(output_dir, error)) {
    const int64_t step = StepOf(entry.path().filename().string());
    if (step < 0) continue;
    found.all.push_back(step);
    if (fs::exists(entry.path() / "state" / "manifest.json", error)) {
      found.complete.push_back(step);
    }
  }
  std::sort(found.all.begin(), found.all.end());
  std::sort(found.complete.begin(), found.complete.end());
  return found;
}

// Has it nothing but what SaveCheckpoint makes before the state is complete?
bool IsUnfinishedCheckpoint(const fs::path& path) {
  std::string name = path.filename().string();
  const bool staged = absl::EndsWith(name, kStaged);
  if (staged) name.resize(name.size() - sizeof(kStaged) + 1);
  if (StepOf(name) < 0) return false;
  if (staged) return true;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(path, error)) {
    const std::string file = entry.path().filename().string();
    if (file != "adapter_config.json" && file != "adapter_model.safetensors" &&
        file != absl::StrCat("state", kStaged)) {
      return false;
    }
  }
  return !error;
}

std::string CheckpointPath(const std::string& output_dir, int64_t step) {
  return absl::StrCat(output_dir, "/", kPrefix, step);
}

absl::Status FileError(const std::string& path, absl::string_view what,
                       const std::error_code& error) {
  return absl::UnavailableError(
      absl::StrCat(path, ": ", what, ": ", error.message()));
}

absl::Status Remove(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  return error ? FileError(path, "cannot be removed", error) : absl::OkStatus();
}

// Values of one kind over steps, from the log.
Curve CurveOf(const std::vector<LogEntry>& history, const std::string& name,
              std::optional<double> LogEntry::*value) {
  Curve curve;
  curve.name = name;
  for (const LogEntry& entry : history) {
    if (!(entry.*value).has_value()) continue;
    curve.steps.push_back(static_cast<double>(entry.step));
    curve.values.push_back(*(entry.*value));
  }
  return curve;
}

}  // namespace

std::string NewestCheckpoint(const std::string& output_dir) {
  const std::vector<int64_t> steps = FindCheckpoints(output_dir).complete;
  return steps.empty() ? "" : CheckpointPath(output_dir, steps.back());
}

bool HasNothingToLose(const std::string& output_dir) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(output_dir, error)) {
    const std::string name = entry.path().filename().string();
    if (name != TrainerLog::kFile &&
        name != absl::StrCat(TrainerLog::kFile, ".tmp") &&
        !IsUnfinishedCheckpoint(entry.path())) {
      return false;
    }
  }
  return !error;
}

std::string TrainJob::ClientState() const {
  Json state;
  state["step"] = step_;
  state["total_steps"] = counts_.total_steps;
  state["data_position"] = data_.Position();
  state["slots_in_epoch"] = slots_in_epoch_;
  state["schedule_state"] = plateau_.ToString();
  state["num_experts"] = num_experts_;
  state["expert_tokens"] = expert_tokens_;
  state["log_history"] = Json::parse(HistoryToJson(log_->history()));
  return state.dump();
}

absl::Status TrainJob::RestoreClientState(const std::string& text) {
  const Json state = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto bad = [&](absl::string_view field) {
    return absl::InvalidArgumentError(
        absl::StrCat(options_.resume_from, ": the state's '", field,
                     "' is missing or of another kind, expected one that octet "
                     "train saved"));
  };
  if (!state.is_object()) return bad("client_state");
  for (const char* key : {"step", "slots_in_epoch", "num_experts"}) {
    if (!state.contains(key) || !state[key].is_number_integer()) {
      return bad(key);
    }
  }
  for (const char* key : {"data_position", "schedule_state"}) {
    if (!state.contains(key) || !state[key].is_string()) return bad(key);
  }
  for (const char* key : {"expert_tokens", "log_history"}) {
    if (!state.contains(key) || !state[key].is_array()) return bad(key);
  }
  std::vector<int64_t> tokens;
  for (const Json& count : state["expert_tokens"]) {
    if (!count.is_number_integer()) return bad("expert_tokens");
    tokens.push_back(count.get<int64_t>());
  }
  OCTET_ASSIGN_OR_RETURN(std::vector<LogEntry> history,
                         HistoryFromJson(state["log_history"].dump()));
  OCTET_ASSIGN_OR_RETURN(
      plateau_,
      PlateauSchedule::Parse(state["schedule_state"].get<std::string>()));
  const absl::Status place =
      data_.Restore(state["data_position"].get<std::string>());
  if (!place.ok()) {
    return absl::Status(place.code(), absl::StrCat(options_.resume_from, ": ",
                                                   place.message()));
  }
  step_ = saved_step_ = state["step"].get<int64_t>();
  slots_in_epoch_ = state["slots_in_epoch"].get<int64_t>();
  num_experts_ = state["num_experts"].get<int>();
  expert_tokens_ = std::move(tokens);
  OCTET_ASSIGN_OR_RETURN(
      TrainerLog log, TrainerLog::Open(options_.output_dir, counts_.total_steps,
                                       std::move(history)));
  log_ = std::make_unique<TrainerLog>(std::move(log));
  return absl::OkStatus();
}

absl::Status TrainJob::LoadCheckpoint() {
  v1::LoadStateRequest request;
  request.set_run_id(run_.run_id());
  request.set_seq_no(++seq_no_);
  request.set_path(absl::StrCat(options_.resume_from, "/state"));
  OCTET_ASSIGN_OR_RETURN(const v1::LoadStateResponse response,
                         client_.LoadState(request));
  OCTET_RETURN_IF_ERROR(RestoreClientState(response.client_state()));
  if (observer_.on_note) {
    observer_.on_note(absl::StrCat("goes on after step ", step_, " of ",
                                   options_.resume_from));
  }
  return absl::OkStatus();
}

absl::Status TrainJob::ExportTo(const std::string& dir) {
  v1::ExportWeightsRequest request;
  request.set_run_id(run_.run_id());
  request.set_path(dir);
  return client_.ExportWeights(request).status();
}

absl::Status TrainJob::SaveCheckpoint(bool background) {
  const std::string path = CheckpointPath(options_.output_dir, step_);
  // One that was not finished, or of a run that is overwritten.
  OCTET_RETURN_IF_ERROR(Remove(path));
  if (options_.run.method() == v1::TRAINING_METHOD_LORA) {
    OCTET_RETURN_IF_ERROR(ExportTo(path));
  } else {
    std::error_code error;
    fs::create_directory(path, error);
    if (error) return FileError(path, "cannot be made", error);
  }
  v1::SaveStateRequest request;
  request.set_run_id(run_.run_id());
  request.set_seq_no(++seq_no_);
  request.set_path(absl::StrCat(path, "/state"));
  request.set_client_state(ClientState());
  request.set_background(background && run_.config().background_saves());
  OCTET_ASSIGN_OR_RETURN(const v1::SaveStateResponse response,
                         client_.SaveState(request));
  saved_step_ = step_;
  // The one before has been waited for.
  const std::string before = std::exchange(writing_, "");
  if (!before.empty()) OCTET_RETURN_IF_ERROR(CompleteCheckpoint(before));
  if (!response.writing()) return CompleteCheckpoint(path);
  writing_ = path;
  return absl::OkStatus();
}

absl::Status TrainJob::FollowSave() {
  if (writing_.empty()) return absl::OkStatus();
  v1::GetRunRequest request;
  request.set_run_id(run_.run_id());
  OCTET_ASSIGN_OR_RETURN(const v1::Run run, client_.GetRun(request));
  switch (run.last_save().stage()) {
    case v1::SAVE_STAGE_COMPLETE:
      return CompleteCheckpoint(std::exchange(writing_, ""));
    case v1::SAVE_STAGE_FAILED:
      return absl::UnavailableError(run.last_save().error());
    default:
      return absl::OkStatus();
  }
}

absl::Status TrainJob::CompleteCheckpoint(const std::string& path) {
  if (observer_.on_note) observer_.on_note(absl::StrCat("saved ", path));
  return RemoveOldCheckpoints();
}

absl::Status TrainJob::RemoveAllCheckpoints() {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(options_.output_dir, error)) {
    if (!absl::StartsWith(entry.path().filename().string(), kPrefix)) continue;
    OCTET_RETURN_IF_ERROR(Remove(entry.path().string()));
  }
  return absl::OkStatus();
}

absl::Status TrainJob::RemoveOldCheckpoints() {
  if (options_.save_total_limit <= 0) return absl::OkStatus();
  const Checkpoints found = FindCheckpoints(options_.output_dir);
  const size_t keep = options_.save_total_limit;
  if (found.complete.size() < keep) return absl::OkStatus();
  // One that a killed process had begun to remove goes too.
  const int64_t oldest = found.complete[found.complete.size() - keep];
  for (const int64_t step : found.all) {
    if (step >= oldest) break;
    OCTET_RETURN_IF_ERROR(Remove(CheckpointPath(options_.output_dir, step)));
  }
  return absl::OkStatus();
}

absl::Status TrainJob::WritePlots() {
  const std::vector<LogEntry>& history = log_->history();
  const struct {
    const char* name;
    const char* file;
    std::optional<double> LogEntry::*value;
  } plots[] = {{"loss", "training_loss", &LogEntry::loss},
               {"eval_loss", "training_eval_loss", &LogEntry::eval_loss}};
  for (const auto& plot : plots) {
    CurveChart chart;
    chart.title = absl::StrCat("training ", plot.name);
    chart.y_label = plot.name;
    chart.curves.push_back(CurveOf(history, plot.name, plot.value));
    if (chart.curves[0].steps.empty()) continue;
    OCTET_RETURN_IF_ERROR(WriteCurveChart(
        chart, absl::StrCat(options_.output_dir, "/", plot.file)));
  }
  if (expert_tokens_.empty()) return absl::OkStatus();
  ExpertMap map;
  map.title = absl::StrCat("tokens per expert, steps 1 to ", step_);
  map.num_experts = num_experts_;
  map.tokens = expert_tokens_;
  return WriteExpertMap(map, absl::StrCat(options_.output_dir, "/expert_load"));
}

// Evaluation, plots, results, the last state and the weights.
absl::Status TrainJob::Finish() {
  const double seconds =
      std::max(1e-9, absl::ToDoubleSeconds(absl::Now() - start_));
  OCTET_RETURN_IF_ERROR(Evaluate().status());
  if (saved_step_ != step_) OCTET_RETURN_IF_ERROR(SaveCheckpoint(false));
  const double own_steps = static_cast<double>(step_ - start_step_);
  if (own_steps > 0) {
    OCTET_RETURN_IF_ERROR(log_->WriteResults(
        "train", {{"epoch", Epoch()},
                  {"train_loss", loss_sum_ / own_steps},
                  {"train_runtime", seconds},
                  {"train_samples_per_second",
                   static_cast<double>(rows_seen_) / seconds},
                  {"train_steps_per_second", own_steps / seconds}}));
  }
  if (std::isfinite(eval_loss_)) {
    OCTET_RETURN_IF_ERROR(
        log_->WriteResults("eval", {{"epoch", Epoch()},
                                    {"eval_loss", eval_loss_},
                                    {"perplexity", std::exp(eval_loss_)}}));
  }
  OCTET_RETURN_IF_ERROR(log_->WriteState(options_.num_epochs));
  OCTET_RETURN_IF_ERROR(WritePlots());

  // The weights lie beside the other files, as the seeds have them.
  const std::string exported = absl::StrCat(options_.output_dir, "/.export");
  OCTET_RETURN_IF_ERROR(Remove(exported));
  OCTET_RETURN_IF_ERROR(ExportTo(exported));
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(exported, error)) {
    const fs::path target =
        fs::path(options_.output_dir) / entry.path().filename();
    fs::rename(entry.path(), target, error);
    if (error) return FileError(target.string(), "cannot be written", error);
  }
  OCTET_RETURN_IF_ERROR(Remove(exported));
  v1::EndRunRequest end;
  end.set_run_id(run_.run_id());
  end.set_seq_no(++seq_no_);
  return client_.EndRun(end).status();
}

}  // namespace octet
