#include "tests/worker/checkpoint/checkpoint_files.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "base/logging.h"
#include "nlohmann/json.hpp"
#include "worker/checkpoint/mixtral_tensors.h"

namespace octet::test {

ModelConfig SmallConfig() {
  ModelConfig config;
  config.vocab_size = 33;
  config.hidden_dim = 12;
  config.ffn_dim = 20;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 6;
  config.num_experts = 4;
  config.top_k = 2;
  config.max_position = 64;
  return config;
}

TensorMap RandomTensors(const ModelConfig& config, DType dtype, uint64_t seed) {
  std::mt19937_64 random(seed);
  TensorMap tensors;
  for (const TensorSpec& spec : MixtralTensors(config, dtype)) {
    TensorData tensor{spec, std::string(spec.num_bytes(), '\0')};
    for (int64_t i = 0; i < spec.num_elements(); ++i) {
      if (dtype == DType::kF32) {
        const float value =
            std::uniform_real_distribution<float>(-2, 2)(random);
        std::memcpy(&tensor.bytes[4 * i], &value, 4);
      } else {
        // Any 16 bits with the exponent's top bit clear are finite.
        const uint16_t bits = random() & 0xbfff;
        std::memcpy(&tensor.bytes[2 * i], &bits, 2);
      }
    }
    tensors[spec.name] = std::move(tensor);
  }
  return tensors;
}

TensorMap FuseExperts(const TensorMap& tensors, const ModelConfig& config) {
  TensorMap fused;
  for (const auto& [name, tensor] : tensors) {
    if (name.find(".experts.") != std::string::npos) continue;
    TensorData copy = tensor;
    copy.spec.name =
        absl::StrReplaceAll(name, {{".block_sparse_moe.", ".mlp."}});
    fused[copy.spec.name] = std::move(copy);
  }
  const DType dtype = tensors.begin()->second.spec.dtype;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const std::string old_prefix =
        absl::StrCat("model.layers.", layer, ".block_sparse_moe.experts.");
    const std::string prefix =
        absl::StrCat("model.layers.", layer, ".mlp.experts.");
    std::string gate_up, down;
    for (int e = 0; e < config.num_experts; ++e) {
      const auto bytes = [&](const char* which) {
        return tensors.at(absl::StrCat(old_prefix, e, ".", which, ".weight"))
            .bytes;
      };
      gate_up += bytes("w1") + bytes("w3");
      down += bytes("w2");
    }
    const int64_t experts = config.num_experts;
    fused[prefix + "gate_up_proj"] = {
        {prefix + "gate_up_proj",
         dtype,
         {experts, 2 * config.ffn_dim, config.hidden_dim}},
        gate_up};
    fused[prefix + "down_proj"] = {
        {prefix + "down_proj",
         dtype,
         {experts, config.hidden_dim, config.ffn_dim}},
        down};
  }
  return fused;
}

void WriteTensors(const std::string& path, const TensorMap& tensors) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : tensors) specs.push_back(tensor.spec);
  auto writer = SafetensorsWriter::Create(path, specs, {{"format", "pt"}});
  OCTET_CHECK(writer.ok()) << writer.status();
  size_t index = 0;
  for (const auto& [name, tensor] : tensors) {
    const absl::Status status =
        (*writer)->Write(index++, 0, tensor.bytes.data(), tensor.bytes.size());
    OCTET_CHECK(status.ok()) << status;
  }
  const absl::Status status = (*writer)->Finish();
  OCTET_CHECK(status.ok()) << status;
}

void WriteShards(const std::string& dir, const TensorMap& tensors,
                 int num_shards) {
  std::vector<TensorMap> shards(num_shards);
  nlohmann::json weight_map;
  int next = 0;
  for (const auto& [name, tensor] : tensors) {
    const int shard = next++ % num_shards;
    shards[shard][name] = tensor;
    weight_map[name] = absl::StrFormat("model-%05d-of-%05d.safetensors",
                                       shard + 1, num_shards);
  }
  for (int shard = 0; shard < num_shards; ++shard) {
    WriteTensors(absl::StrFormat("%s/model-%05d-of-%05d.safetensors", dir,
                                 shard + 1, num_shards),
                 shards[shard]);
  }
  WriteText(dir + "/model.safetensors.index.json",
            nlohmann::json{{"weight_map", weight_map}}.dump());
}

void WriteRawSafetensors(const std::string& path, const std::string& header,
                         const std::string& data) {
  const uint64_t length = header.size();
  std::string text(reinterpret_cast<const char*>(&length), sizeof(length));
  WriteText(path, text + header + data);
}

void WriteText(const std::string& path, const std::string& text) {
  std::ofstream stream(path, std::ios::binary | std::ios::trunc);
  stream << text;
  stream.close();
  OCTET_CHECK(stream.good()) << path;
}

std::string ReadText(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  OCTET_CHECK(stream.good()) << path;
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

}  // namespace octet::test
