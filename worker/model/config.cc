#include "worker/model/config.h"

#include <charconv>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "worker/model/config_limits.h"

namespace octet {
namespace {

absl::Status CheckRange(absl::string_view name, absl::string_view key,
                        int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      name, ": '", key, "' is ", value, ", expected ", low, " to ", high));
}

absl::Status CheckNumbers(const ModelConfig& config, absl::string_view name) {
  if (!(config.rms_norm_eps > 0 && config.rms_norm_eps <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": 'rms_norm_eps' is ", config.rms_norm_eps,
                     ", expected more than 0 and at most 1"));
  }
  if (!(config.rope_theta >= 1 && config.rope_theta <= 1e15f)) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": 'rope_theta' is ", config.rope_theta, ", expected 1 to 1e15"));
  }
  const DType dtype = config.checkpoint_dtype;
  if (dtype != DType::kF32 && dtype != DType::kBF16 && dtype != DType::kF16) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": 'dtype' is ", Name(config.checkpoint_dtype),
                     ", expected f32, bf16 or f16"));
  }
  OCTET_RETURN_IF_ERROR(CheckRange(name, "bos_token_id", config.bos_token_id,
                                   -1, config.vocab_size - 1));
  for (int id : config.eos_token_ids) {
    OCTET_RETURN_IF_ERROR(
        CheckRange(name, "eos_token_id", id, 0, config.vocab_size - 1));
  }
  return absl::OkStatus();
}

absl::Status CheckConsistency(const ModelConfig& config,
                              absl::string_view name) {
  if (config.num_heads % config.num_kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": 'num_attention_heads' is ", config.num_heads,
                     ", expected a multiple of 'num_key_value_heads' (",
                     config.num_kv_heads, ")"));
  }
  if (config.top_k > config.num_experts) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": 'num_experts_per_tok' is ", config.top_k,
        ", expected at most 'num_local_experts' (", config.num_experts, ")"));
  }
  if (config.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": 'head_dim' is ", config.head_dim,
                     ", expected an even number"));
  }
  return absl::OkStatus();
}

// The double whose shortest text is the float's: 1e-5f becomes 1e-05, not
// 9.999999747378752e-06.
double ShortDouble(float value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof(text) - 1, value).ptr;
  *end = '\0';
  return std::strtod(text, nullptr);
}

int64_t DenseParametersPerLayer(const ModelConfig& config) {
  const int64_t attention =
      config.hidden_dim * (2 * config.q_dim() + 2 * config.kv_dim());
  const int64_t gate = config.num_experts * config.hidden_dim;
  return attention + gate + 2 * config.hidden_dim;
}

int64_t ParametersWithExperts(const ModelConfig& config, int64_t experts) {
  const int64_t per_layer = DenseParametersPerLayer(config) +
                            experts * 3 * config.ffn_dim * config.hidden_dim;
  const int64_t ends = config.vocab_size * config.hidden_dim *
                           (config.tie_word_embeddings ? 1 : 2) +
                       config.hidden_dim;
  return config.num_layers * per_layer + ends;
}

}  // namespace

int64_t ModelConfig::num_parameters() const {
  return ParametersWithExperts(*this, num_experts);
}

int64_t ModelConfig::num_active_parameters() const {
  return ParametersWithExperts(*this, top_k);
}

absl::Status ValidateModelConfig(const ModelConfig& config,
                                 absl::string_view name) {
  const struct {
    absl::string_view key;
    int64_t value, low, high;
  } checks[] = {
      {"vocab_size", config.vocab_size, 1, kMaxVocab},
      {"hidden_size", config.hidden_dim, 1, kMaxHidden},
      {"intermediate_size", config.ffn_dim, 1, kMaxFfn},
      {"num_hidden_layers", config.num_layers, 1, kMaxLayers},
      {"num_attention_heads", config.num_heads, 1, kMaxHeads},
      {"num_key_value_heads", config.num_kv_heads, 1, kMaxHeads},
      {"head_dim", config.head_dim, 1, kMaxHeadDim},
      {"num_local_experts", config.num_experts, 1, kMaxExperts},
      {"num_experts_per_tok", config.top_k, 1, kMaxExperts},
      {"max_position_embeddings", config.max_position, 1, kMaxPosition},
      {"sliding_window", config.sliding_window, 0, kMaxWindow},
  };
  for (const auto& check : checks) {
    OCTET_RETURN_IF_ERROR(
        CheckRange(name, check.key, check.value, check.low, check.high));
  }
  OCTET_RETURN_IF_ERROR(CheckConsistency(config, name));
  return CheckNumbers(config, name);
}

std::string ModelConfigToJson(const ModelConfig& config) {
  const absl::string_view dtype =
      config.checkpoint_dtype == DType::kF32    ? "float32"
      : config.checkpoint_dtype == DType::kBF16 ? "bfloat16"
                                                : "float16";
  nlohmann::ordered_json root;
  root["architectures"] = {"MixtralForCausalLM"};
  root["model_type"] = "mixtral";
  root["vocab_size"] = config.vocab_size;
  root["hidden_size"] = config.hidden_dim;
  root["intermediate_size"] = config.ffn_dim;
  root["num_hidden_layers"] = config.num_layers;
  root["num_attention_heads"] = config.num_heads;
  root["num_key_value_heads"] = config.num_kv_heads;
  root["head_dim"] = config.head_dim;
  root["num_local_experts"] = config.num_experts;
  root["num_experts_per_tok"] = config.top_k;
  root["hidden_act"] = "silu";
  root["max_position_embeddings"] = config.max_position;
  root["sliding_window"] = nullptr;
  if (config.sliding_window > 0) root["sliding_window"] = config.sliding_window;
  root["rms_norm_eps"] = ShortDouble(config.rms_norm_eps);
  root["rope_theta"] = ShortDouble(config.rope_theta);
  root["tie_word_embeddings"] = config.tie_word_embeddings;
  root["torch_dtype"] = std::string(dtype);
  root["bos_token_id"] = nullptr;
  if (config.bos_token_id >= 0) root["bos_token_id"] = config.bos_token_id;
  root["eos_token_id"] = nullptr;
  if (config.eos_token_ids.size() == 1) {
    root["eos_token_id"] = config.eos_token_ids[0];
  } else if (!config.eos_token_ids.empty()) {
    root["eos_token_id"] = config.eos_token_ids;
  }
  return root.dump(2) + "\n";
}

}  // namespace octet
