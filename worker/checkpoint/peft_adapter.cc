#include "worker/checkpoint/peft_adapter.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/dtype.h"
#include "nlohmann/json.hpp"
#include "worker/checkpoint/float_reader.h"
#include "worker/model/json_file.h"

namespace octet {
namespace {

constexpr char kPrefix[] = "base_model.model.";
constexpr uint64_t kMaxConfigBytes = 1 << 20;

// Reads the fields of one config; the first error stays.
class AdapterReader {
 public:
  AdapterReader(const nlohmann::json& root, absl::string_view name)
      : root_(root), name_(name) {}

  absl::Status Error(absl::string_view key, absl::string_view expected) const {
    const auto found = root_.find(std::string(key));
    return absl::InvalidArgumentError(
        absl::StrCat(name_, ": ", key, " is ",
                     found == root_.end() ? "missing" : JsonExcerpt(*found),
                     ", expected ", expected));
  }

  // Absent, null or `neutral`.
  absl::Status Neutral(absl::string_view key,
                       const nlohmann::json& neutral) const {
    const auto found = root_.find(std::string(key));
    if (found == root_.end() || found->is_null() || *found == neutral) {
      return absl::OkStatus();
    }
    return Error(key,
                 absl::StrCat(neutral.dump(), ": this is not supported here"));
  }

  absl::StatusOr<double> Number(absl::string_view key, double low,
                                double high) const {
    const auto found = root_.find(std::string(key));
    if (found == root_.end() || !found->is_number()) {
      return Error(key, "a number");
    }
    const double value = found->get<double>();
    if (!(value >= low && value <= high)) {
      return Error(key, absl::StrCat("a number from ", low, " to ", high));
    }
    return value;
  }

  absl::StatusOr<std::vector<std::string>> Names(absl::string_view key) const {
    std::vector<std::string> names;
    const auto found = root_.find(std::string(key));
    if (found == root_.end() || found->is_null()) return names;
    if (!found->is_array()) return Error(key, "a list of module names");
    for (const nlohmann::json& name : *found) {
      if (!name.is_string() || name.get_ref<const std::string&>().empty()) {
        return Error(key, "a list of module names");
      }
      names.push_back(name.get<std::string>());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  const nlohmann::json& root_;
  const absl::string_view name_;
};

absl::Status CheckNeutral(const nlohmann::json& root,
                          const AdapterReader& reader) {
  const auto type = root.find("peft_type");
  if (type == root.end() || *type != "LORA") {
    return reader.Error("peft_type", "\"LORA\"");
  }
  for (const char* key : {"use_rslora", "use_dora", "lora_bias",
                          "fan_in_fan_out", "use_qalora"}) {
    OCTET_RETURN_IF_ERROR(reader.Neutral(key, false));
  }
  for (const char* key : {"rank_pattern", "alpha_pattern"}) {
    OCTET_RETURN_IF_ERROR(reader.Neutral(key, nlohmann::json::object()));
  }
  for (const char* key :
       {"layers_to_transform", "layers_pattern", "exclude_modules",
        "target_parameters", "trainable_token_indices", "layer_replication",
        "megatron_config"}) {
    const auto found = root.find(key);
    if (found != root.end() && found->is_array() && found->empty()) continue;
    OCTET_RETURN_IF_ERROR(reader.Neutral(key, nullptr));
  }
  return reader.Neutral("bias", "none");
}

}  // namespace

absl::StatusOr<AdapterConfig> ParseAdapterConfig(absl::string_view json,
                                                 absl::string_view name) {
  OCTET_ASSIGN_OR_RETURN(const nlohmann::json root,
                         ParseJsonObject(json, name));
  const AdapterReader reader(root, name);
  OCTET_RETURN_IF_ERROR(CheckNeutral(root, reader));
  AdapterConfig config;
  OCTET_ASSIGN_OR_RETURN(const double lora_rank,
                         reader.Number("r", 1, 1 << 20));
  config.lora_rank = static_cast<int>(lora_rank);
  if (config.lora_rank != lora_rank) return reader.Error("r", "a whole number");
  OCTET_ASSIGN_OR_RETURN(const double alpha,
                         reader.Number("lora_alpha", 1e-30, 1e30));
  config.alpha = static_cast<float>(alpha);
  if (root.contains("lora_dropout") && !root["lora_dropout"].is_null()) {
    OCTET_ASSIGN_OR_RETURN(const double dropout,
                           reader.Number("lora_dropout", 0, 0.999));
    config.dropout = static_cast<float>(dropout);
  }
  if (root.contains("target_modules") &&
      root["target_modules"] == "all-linear") {
    config.target_modules = {"all"};
  } else {
    OCTET_ASSIGN_OR_RETURN(config.target_modules,
                           reader.Names("target_modules"));
    if (config.target_modules.empty()) {
      return reader.Error("target_modules", "a list of module names");
    }
  }
  OCTET_ASSIGN_OR_RETURN(config.modules_to_save,
                         reader.Names("modules_to_save"));
  if (root.contains("base_model_name_or_path") &&
      root["base_model_name_or_path"].is_string()) {
    config.base_model = root["base_model_name_or_path"].get<std::string>();
  }
  return config;
}

std::string AdapterConfigToJson(const AdapterConfig& config) {
  nlohmann::ordered_json root;
  root["base_model_name_or_path"] = config.base_model;
  root["bias"] = "none";
  root["fan_in_fan_out"] = false;
  root["inference_mode"] = true;
  root["lora_alpha"] = config.alpha;
  root["lora_dropout"] = config.dropout;
  root["modules_to_save"] = nullptr;
  if (!config.modules_to_save.empty()) {
    root["modules_to_save"] = config.modules_to_save;
  }
  root["peft_type"] = "LORA";
  root["r"] = config.lora_rank;
  root["target_modules"] = config.target_modules;
  if (config.target_modules == std::vector<std::string>{"all"}) {
    root["target_modules"] = "all-linear";
  }
  root["task_type"] = "CAUSAL_LM";
  return root.dump(2) + "\n";
}

std::string PeftTensorName(absl::string_view parameter_name) {
  return absl::StrCat(kPrefix, parameter_name);
}

absl::StatusOr<std::unique_ptr<PeftAdapter>> PeftAdapter::Open(
    const std::string& dir) {
  OCTET_RETURN_IF_ERROR(CheckCheckpointDirectory(dir));
  std::unique_ptr<PeftAdapter> adapter(new PeftAdapter);
  const std::string path = absl::StrCat(dir, "/", kConfigFile);
  OCTET_ASSIGN_OR_RETURN(const std::string text,
                         ReadSmallFile(path, kMaxConfigBytes));
  OCTET_ASSIGN_OR_RETURN(adapter->config_, ParseAdapterConfig(text, path));
  OCTET_ASSIGN_OR_RETURN(adapter->file_, SafetensorsFile::Open(absl::StrCat(
                                             dir, "/", kTensorsFile)));
  return adapter;
}

absl::Status PeftAdapter::Check(absl::Span<const Expected> expected) const {
  absl::flat_hash_set<std::string> names;
  for (const Expected& parameter : expected) {
    const std::string name = PeftTensorName(parameter.name);
    names.insert(name);
    const SafetensorsEntry* entry = file_->Find(name);
    if (entry == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(
          file_->path(), ": tensor '", name, "' is missing, expected shape ",
          ShapeToString(parameter.shape)));
    }
    if (entry->shape != parameter.shape) {
      return absl::InvalidArgumentError(
          absl::StrCat(file_->path(), ": tensor '", name, "' has shape ",
                       ShapeToString(entry->shape), ", expected ",
                       ShapeToString(parameter.shape)));
    }
    OCTET_RETURN_IF_ERROR(CheckFloats(*file_, *entry));
  }
  for (const SafetensorsEntry& entry : file_->entries()) {
    if (names.contains(entry.name)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(file_->path(), ": tensor '", entry.name,
                     "' belongs to no module that adapter_config.json names, "
                     "expected none such"));
  }
  return absl::OkStatus();
}

absl::Status PeftAdapter::Read(absl::string_view parameter_name, int64_t begin,
                               absl::Span<float> out) const {
  const std::string name = PeftTensorName(parameter_name);
  const SafetensorsEntry* entry = file_->Find(name);
  if (entry == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(file_->path(), ": tensor '", name, "' is missing"));
  }
  return ReadFloats(*file_, *entry, begin, out);
}

}  // namespace octet
