// Reads config.json and generation_config.json.
#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/model/config.h"
#include "worker/model/config_limits.h"
#include "worker/model/config_reader.h"
#include "worker/model/json_file.h"

namespace octet {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxConfigBytes = 4 << 20;

// Keys whose mere presence (other than null, false or 0) changes what is
// computed, and which Octet does not compute.
constexpr absl::string_view kRefusedKeys[] = {
    "attention_bias", "mlp_bias", "quantization_config", "num_shared_experts",
    "clip_qkv",       "qk_norm",  "logit_scale"};

absl::Status CheckArchitecture(const ConfigReader& reader) {
  const json* type = reader.Find("model_type");
  if (type != nullptr && *type != "mixtral") {
    return reader.Error("model_type", *type, "\"mixtral\"");
  }
  const json* architectures = reader.Find("architectures");
  if (architectures != nullptr &&
      (!architectures->is_array() ||
       std::find(architectures->begin(), architectures->end(),
                 "MixtralForCausalLM") == architectures->end())) {
    return reader.Error("architectures", *architectures,
                        "[\"MixtralForCausalLM\"]");
  }
  if (type == nullptr && architectures == nullptr) {
    return reader.Missing("model_type");
  }
  return absl::OkStatus();
}

absl::Status CheckMathematics(const ConfigReader& reader) {
  const json* activation = reader.Find("hidden_act");
  if (activation != nullptr && *activation != "silu") {
    return reader.Error("hidden_act", *activation, "\"silu\"");
  }
  for (absl::string_view key : kRefusedKeys) {
    const json* value = reader.Find(key);
    if (value != nullptr && *value != false && *value != 0) {
      return reader.Error(key, *value, "none");
    }
  }
  return absl::OkStatus();
}

// One dictionary of rotary parameters: `rope_parameters` (transformers 5) or
// `rope_scaling` (4). Only the plain rotary embedding is known.
absl::Status CheckRopeDict(const ConfigReader& reader, absl::string_view key) {
  const json* rope = reader.Find(key);
  if (rope == nullptr) return absl::OkStatus();
  if (!rope->is_object()) return reader.Error(key, *rope, "an object or null");
  for (absl::string_view type_key : {"rope_type", "type"}) {
    const auto type = rope->find(std::string(type_key));
    if (type != rope->end() && *type != "default") {
      return reader.Error(absl::StrCat(key, ".", type_key), *type,
                          "\"default\"");
    }
  }
  for (const auto& [name, value] : rope->items()) {
    if (value.is_object()) {  // one set per attention type
      return reader.Error(absl::StrCat(key, ".", name), value, "no object");
    }
    if (name == "partial_rotary_factor" && value != 1) {
      return reader.Error(absl::StrCat(key, ".", name), value, "1");
    }
  }
  if (rope->contains("factor") && !rope->contains("rope_type") &&
      !rope->contains("type")) {
    return reader.Error(key, *rope, "null");
  }
  return absl::OkStatus();
}

absl::Status ReadRope(const ConfigReader& reader, ModelConfig* config) {
  OCTET_RETURN_IF_ERROR(CheckRopeDict(reader, "rope_scaling"));
  OCTET_RETURN_IF_ERROR(CheckRopeDict(reader, "rope_parameters"));
  const json* partial = reader.Find("partial_rotary_factor");
  if (partial != nullptr && *partial != 1) {
    return reader.Error("partial_rotary_factor", *partial, "1");
  }
  // As in transformers 5, the value inside the dictionary wins.
  OCTET_RETURN_IF_ERROR(reader.ReadFloat("rope_theta", &config->rope_theta));
  const json* rope = reader.Find("rope_parameters");
  if (rope == nullptr || !rope->contains("rope_theta")) {
    return absl::OkStatus();
  }
  const ConfigReader inner(*rope, reader.name(), "rope_parameters.");
  return inner.ReadFloat("rope_theta", &config->rope_theta);
}

// Keys that are absent mean Mixtral 8x7B's value, as in transformers; a wrong
// guess shows in the shapes of the tensors.
absl::Status ReadShape(const ConfigReader& reader, ModelConfig* config) {
  OCTET_RETURN_IF_ERROR(
      reader.ReadInt("vocab_size", 1, kMaxVocab, &config->vocab_size));
  OCTET_RETURN_IF_ERROR(
      reader.ReadInt("hidden_size", 1, kMaxHidden, &config->hidden_dim));
  OCTET_RETURN_IF_ERROR(
      reader.ReadInt("intermediate_size", 1, kMaxFfn, &config->ffn_dim));
  OCTET_RETURN_IF_ERROR(
      reader.ReadInt("num_hidden_layers", 1, kMaxLayers, &config->num_layers));
  OCTET_RETURN_IF_ERROR(
      reader.ReadInt("num_attention_heads", 1, kMaxHeads, &config->num_heads));
  // Null, unlike absent, means one per query head.
  if (reader.IsNull("num_key_value_heads")) {
    config->num_kv_heads = config->num_heads;
  }
  OCTET_RETURN_IF_ERROR(reader.ReadIntOrNull("num_key_value_heads", 1,
                                             kMaxHeads, &config->num_kv_heads));
  const absl::string_view experts_key =
      reader.Has("num_local_experts") ? "num_local_experts" : "num_experts";
  OCTET_RETURN_IF_ERROR(
      reader.ReadInt(experts_key, 1, kMaxExperts, &config->num_experts));
  OCTET_RETURN_IF_ERROR(
      reader.ReadInt("num_experts_per_tok", 1, kMaxExperts, &config->top_k));
  if (reader.Find("head_dim") == nullptr) {
    if (config->hidden_dim % config->num_heads != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          reader.name(), ": 'head_dim' is missing and 'hidden_size' ",
          config->hidden_dim, " is not a multiple of 'num_attention_heads' ",
          config->num_heads));
    }
    config->head_dim = static_cast<int>(config->hidden_dim / config->num_heads);
  }
  return reader.ReadIntOrNull("head_dim", 1, kMaxHeadDim, &config->head_dim);
}

absl::Status ReadDType(const ConfigReader& reader, ModelConfig* config) {
  // transformers 5 writes `dtype`, 4 wrote `torch_dtype`.
  const absl::string_view key =
      reader.Find("dtype") != nullptr ? "dtype" : "torch_dtype";
  const json* value = reader.Find(key);
  if (value == nullptr || *value == "float32") {
    config->checkpoint_dtype = DType::kF32;
  } else if (*value == "bfloat16") {
    config->checkpoint_dtype = DType::kBF16;
  } else if (*value == "float16") {
    config->checkpoint_dtype = DType::kF16;
  } else {
    return reader.Error(key, *value,
                        "\"float32\", \"bfloat16\" or \"float16\"");
  }
  return absl::OkStatus();
}

// Adds the file's end-of-sequence ids to `ids`, in order, without repeats.
absl::Status ReadEosIds(const ConfigReader& reader, int64_t vocab_size,
                        std::vector<int>* ids) {
  const json* value = reader.Find("eos_token_id");
  if (value == nullptr) return absl::OkStatus();
  const json list = value->is_array() ? *value : json::array({*value});
  for (const json& item : list) {
    int id = 0;
    OCTET_RETURN_IF_ERROR(
        reader.ToInt("eos_token_id", item, 0, vocab_size - 1, &id));
    if (std::find(ids->begin(), ids->end(), id) == ids->end()) {
      ids->push_back(id);
    }
  }
  return absl::OkStatus();
}

absl::Status ReadTokenIds(const ConfigReader& reader, ModelConfig* config) {
  config->bos_token_id =
      reader.IsNull("bos_token_id")
          ? -1
          : static_cast<int>(std::min<int64_t>(1, config->vocab_size - 1));
  OCTET_RETURN_IF_ERROR(reader.ReadIntOrNull(
      "bos_token_id", -1, config->vocab_size - 1, &config->bos_token_id));
  if (!reader.Has("eos_token_id")) {  // transformers' default for Mixtral
    config->eos_token_ids.clear();
    if (config->vocab_size > 2) config->eos_token_ids.push_back(2);
    return absl::OkStatus();
  }
  config->eos_token_ids.clear();
  return ReadEosIds(reader, config->vocab_size, &config->eos_token_ids);
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view text,
                                             absl::string_view name) {
  OCTET_ASSIGN_OR_RETURN(const json root, ParseJsonObject(text, name));
  const ConfigReader reader(root, name);
  ModelConfig config;
  OCTET_RETURN_IF_ERROR(CheckArchitecture(reader));
  OCTET_RETURN_IF_ERROR(CheckMathematics(reader));
  OCTET_RETURN_IF_ERROR(ReadShape(reader, &config));
  OCTET_RETURN_IF_ERROR(ReadRope(reader, &config));
  OCTET_RETURN_IF_ERROR(ReadDType(reader, &config));
  OCTET_RETURN_IF_ERROR(ReadTokenIds(reader, &config));
  config.max_position = 4096 * 32;  // transformers' default
  OCTET_RETURN_IF_ERROR(reader.ReadInt("max_position_embeddings", 1,
                                       kMaxPosition, &config.max_position));
  OCTET_RETURN_IF_ERROR(reader.ReadIntOrNull("sliding_window", 1, kMaxWindow,
                                             &config.sliding_window));
  OCTET_RETURN_IF_ERROR(reader.ReadFloat("rms_norm_eps", &config.rms_norm_eps));
  OCTET_RETURN_IF_ERROR(
      reader.ReadBool("tie_word_embeddings", &config.tie_word_embeddings));
  OCTET_RETURN_IF_ERROR(ValidateModelConfig(config, name));
  return config;
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& dir) {
  OCTET_RETURN_IF_ERROR(CheckCheckpointDirectory(dir));
  const std::string path = absl::StrCat(dir, "/config.json");
  OCTET_ASSIGN_OR_RETURN(const std::string text,
                         ReadSmallFile(path, kMaxConfigBytes));
  OCTET_ASSIGN_OR_RETURN(ModelConfig config, ParseModelConfig(text, path));

  const std::string generation_path =
      absl::StrCat(dir, "/generation_config.json");
  std::error_code error;
  if (!std::filesystem::exists(generation_path, error)) return config;
  OCTET_ASSIGN_OR_RETURN(const std::string generation_text,
                         ReadSmallFile(generation_path, kMaxConfigBytes));
  OCTET_ASSIGN_OR_RETURN(const json generation,
                         ParseJsonObject(generation_text, generation_path));
  OCTET_RETURN_IF_ERROR(ReadEosIds(ConfigReader(generation, generation_path),
                                   config.vocab_size, &config.eos_token_ids));
  return config;
}

}  // namespace octet
