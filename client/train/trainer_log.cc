#include "client/train/trainer_log.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace octet {
namespace {

using Json = nlohmann::ordered_json;

struct Field {
  const char* name;
  std::optional<double> LogEntry::*value;
};

constexpr Field kFields[] = {
    {"loss", &LogEntry::loss},
    {"eval_loss", &LogEntry::eval_loss},
    {"learning_rate", &LogEntry::learning_rate},
    {"aux_loss", &LogEntry::aux_loss},
    {"z_loss", &LogEntry::z_loss},
    {"grad_norm", &LogEntry::grad_norm},
    {"tokens_per_second", &LogEntry::tokens_per_second},
};

// JSON has no NaN; a loss that is none is null.
Json Number(const std::optional<double>& value) {
  return value.has_value() && std::isfinite(*value) ? Json(*value)
                                                    : Json(nullptr);
}

Json ToJson(const LogEntry& entry) {
  Json out;
  for (const Field& field : kFields) {
    if ((entry.*field.value).has_value()) {
      out[field.name] = Number(entry.*field.value);
    }
  }
  out["epoch"] = entry.epoch;
  out["step"] = entry.step;
  return out;
}

// By errno, which streams leave as the system set it.
absl::Status NotWritten(const std::string& path) {
  return absl::UnavailableError(
      absl::StrCat(path, ": cannot be written: ", std::strerror(errno)));
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  const std::string temporary = absl::StrCat(path, ".tmp");
  std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (file.good() && std::rename(temporary.c_str(), path.c_str()) == 0) {
    return absl::OkStatus();
  }
  const absl::Status error = NotWritten(path);
  std::remove(temporary.c_str());
  return error;
}

std::string Line(const LogEntry& entry, int64_t total_steps,
                 absl::Duration elapsed, int64_t start_step) {
  const int64_t done = entry.step - start_step;
  const absl::Duration remaining =
      done > 0 ? elapsed / done * std::max<int64_t>(0, total_steps - entry.step)
               : absl::ZeroDuration();
  Json line;
  line["current_steps"] = entry.step;
  line["total_steps"] = total_steps;
  line["loss"] = Number(entry.loss);
  line["eval_loss"] = Number(entry.eval_loss);
  line["predict_loss"] = nullptr;
  line["reward"] = nullptr;
  line["learning_rate"] = Number(entry.learning_rate);
  line["epoch"] = std::round(entry.epoch * 100) / 100;
  line["percentage"] =
      total_steps > 0 ? std::round(10000.0 * static_cast<double>(entry.step) /
                                   static_cast<double>(total_steps)) /
                            100
                      : 100.0;
  line["elapsed_time"] = FormatHours(elapsed);
  line["remaining_time"] = FormatHours(remaining);
  for (const Field& field : kFields) {
    if (!line.contains(field.name) && (entry.*field.value).has_value()) {
      line[field.name] = Number(entry.*field.value);
    }
  }
  return line.dump() + "\n";
}

std::string LogPath(const std::string& output_dir) {
  return absl::StrCat(output_dir, "/", TrainerLog::kFile);
}

}  // namespace

std::string FormatHours(absl::Duration duration) {
  const int64_t seconds = std::max<int64_t>(0, absl::ToInt64Seconds(duration));
  return absl::StrFormat("%d:%02d:%02d", seconds / 3600, seconds / 60 % 60,
                         seconds % 60);
}

absl::StatusOr<TrainerLog> TrainerLog::Open(const std::string& output_dir,
                                            int64_t total_steps,
                                            std::vector<LogEntry> history) {
  TrainerLog log(output_dir, total_steps);
  std::string text;
  for (const LogEntry& entry : history) {
    text += Line(entry, total_steps, absl::ZeroDuration(), entry.step);
  }
  log.history_ = std::move(history);
  OCTET_RETURN_IF_ERROR(WriteFile(LogPath(output_dir), text));
  return log;
}

absl::Status TrainerLog::Add(const LogEntry& entry, absl::Duration elapsed,
                             int64_t start_step) {
  history_.push_back(entry);
  const std::string path = LogPath(output_dir_);
  std::ofstream file(path, std::ios::binary | std::ios::app);
  file << Line(entry, total_steps_, elapsed, start_step);
  file.close();
  if (file.good()) return absl::OkStatus();
  return NotWritten(path);
}

absl::Status TrainerLog::WriteState(double num_epochs) const {
  Json state;
  state["epoch"] = history_.empty() ? 0.0 : history_.back().epoch;
  state["global_step"] = history_.empty() ? 0 : history_.back().step;
  state["max_steps"] = total_steps_;
  state["num_train_epochs"] = num_epochs;
  state["log_history"] = Json::array();
  for (const LogEntry& entry : history_) {
    state["log_history"].push_back(ToJson(entry));
  }
  return WriteFile(absl::StrCat(output_dir_, "/trainer_state.json"),
                   state.dump(2) + "\n");
}

absl::Status TrainerLog::WriteResults(
    const std::string& name,
    const std::map<std::string, double>& numbers) const {
  const std::string all_path = absl::StrCat(output_dir_, "/all_results.json");
  Json all = Json::object();
  std::ifstream before(all_path, std::ios::binary);
  if (before.good()) {
    // What cannot be read is written anew.
    all = Json::parse(before, nullptr, /*allow_exceptions=*/false);
    if (!all.is_object()) all = Json::object();
  }
  Json own;
  for (const auto& [key, value] : numbers) {
    own[key] = Number(value);
    all[key] = Number(value);
  }
  OCTET_RETURN_IF_ERROR(
      WriteFile(absl::StrCat(output_dir_, "/", name, "_results.json"),
                own.dump(4) + "\n"));
  return WriteFile(all_path, all.dump(4) + "\n");
}

std::string HistoryToJson(const std::vector<LogEntry>& history) {
  Json list = Json::array();
  for (const LogEntry& entry : history) list.push_back(ToJson(entry));
  return list.dump();
}

absl::StatusOr<std::vector<LogEntry>> HistoryFromJson(const std::string& text) {
  const Json list = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto number = [](const Json& object, const char* name) {
    const auto it = object.find(name);
    return it != object.end() && it->is_number();
  };
  std::vector<LogEntry> history;
  if (!list.is_array()) {
    return absl::InvalidArgumentError(
        "log history: not a JSON array, expected one entry per log");
  }
  for (const Json& object : list) {
    if (!object.is_object() || !number(object, "step") ||
        !number(object, "epoch")) {
      return absl::InvalidArgumentError(
          absl::StrCat("log history: entry ", history.size(),
                       " lacks 'step' or 'epoch', expected both as numbers"));
    }
    LogEntry entry;
    entry.step = object["step"].get<int64_t>();
    entry.epoch = object["epoch"].get<double>();
    for (const Field& field : kFields) {
      if (number(object, field.name)) {
        entry.*field.value = object[field.name].get<double>();
      } else if (object.contains(field.name)) {
        entry.*field.value = std::nan("");
      }
    }
    history.push_back(entry);
  }
  return history;
}

}  // namespace octet
