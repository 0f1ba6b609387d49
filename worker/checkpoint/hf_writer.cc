#include "worker/checkpoint/hf_writer.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace octet {
namespace {

std::string GenerationConfig(const ModelConfig& config) {
  nlohmann::ordered_json root;
  root["bos_token_id"] = nullptr;
  if (config.bos_token_id >= 0) root["bos_token_id"] = config.bos_token_id;
  root["eos_token_id"] = config.eos_token_ids;
  return root.dump(2) + "\n";
}

}  // namespace

std::vector<std::vector<TensorSpec>> SplitIntoShards(
    std::vector<TensorSpec> tensors, uint64_t shard_bytes) {
  std::vector<std::vector<TensorSpec>> shards;
  uint64_t bytes = 0;
  for (TensorSpec& tensor : tensors) {
    if (shards.empty() || bytes + tensor.num_bytes() > shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += tensor.num_bytes();
    shards.back().push_back(std::move(tensor));
  }
  return shards;
}

std::string ShardName(size_t index, size_t count) {
  if (count == 1) return "model.safetensors";
  return absl::StrFormat("model-%05d-of-%05d.safetensors", index + 1, count);
}

absl::Status WriteShardIndex(
    const std::string& dir,
    const std::vector<std::vector<TensorSpec>>& shards) {
  if (shards.size() == 1) return absl::OkStatus();
  nlohmann::json weight_map = nlohmann::json::object();
  uint64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    for (const TensorSpec& tensor : shards[i]) {
      weight_map[tensor.name] = ShardName(i, shards.size());
      total += tensor.num_bytes();
    }
  }
  const nlohmann::json index = {{"metadata", {{"total_size", total}}},
                                {"weight_map", std::move(weight_map)}};
  return WriteFileAtomically(dir + "/model.safetensors.index.json",
                             index.dump(2) + "\n");
}

absl::Status WriteModelFiles(const std::string& dir, const ModelConfig& config,
                             const std::string& tokenizer_path) {
  OCTET_RETURN_IF_ERROR(
      WriteFileAtomically(dir + "/config.json", ModelConfigToJson(config)));
  OCTET_RETURN_IF_ERROR(WriteFileAtomically(dir + "/generation_config.json",
                                            GenerationConfig(config)));
  if (tokenizer_path.empty()) return absl::OkStatus();
  std::error_code error;
  std::filesystem::copy_file(tokenizer_path, dir + "/tokenizer.model", error);
  if (error) {
    return absl::InvalidArgumentError(absl::StrCat(
        tokenizer_path, ": cannot copy tokenizer: ", error.message()));
  }
  return absl::OkStatus();
}

}  // namespace octet
