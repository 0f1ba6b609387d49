// The shape of a Mixtral-family model, as read from a Hugging Face config.json.
//
// Plain data: copy it freely. Only validated configs are used elsewhere.
#ifndef OCTET_WORKER_MODEL_CONFIG_H_
#define OCTET_WORKER_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/dtype.h"

namespace octet {

struct ModelConfig {
  int64_t vocab_size = 32000;    // V
  int64_t hidden_dim = 4096;     // H
  int64_t ffn_dim = 14336;       // F, of one expert
  int num_layers = 32;           // L
  int num_heads = 32;            // N_q
  int num_kv_heads = 8;          // N_kv, divides N_q
  int head_dim = 128;            // D, even
  int num_experts = 8;           // E
  int top_k = 2;                 // K <= E
  int64_t max_position = 32768;  // tokens
  int sliding_window = 0;        // tokens; 0 = none
  float rms_norm_eps = 1e-5f;
  float rope_theta = 1e6f;
  bool tie_word_embeddings = false;
  DType checkpoint_dtype = DType::kBF16;  // what config.json announces; tensors
                                          // may differ, each says its own
  int bos_token_id = 1;                   // -1 = none
  std::vector<int> eos_token_ids = {2};

  int64_t q_dim() const { return int64_t{num_heads} * head_dim; }
  int64_t kv_dim() const { return int64_t{num_kv_heads} * head_dim; }
  // Parameters in all, and those one token passes through.
  int64_t num_parameters() const;
  int64_t num_active_parameters() const;

  bool operator==(const ModelConfig&) const = default;
};

// Reads config.json's text. `name` (a path) leads every error sentence. Unknown
// keys are ignored except those that would change the mathematics (rope
// scaling, another activation, attention bias...): these are refused by name.
absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view json,
                                             absl::string_view name);
// Reads `dir`/config.json.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& dir);

// Range and consistency checks, also for configs that come from flags. Part of
// parsing.
absl::Status ValidateModelConfig(const ModelConfig& config,
                                 absl::string_view name);

// config.json as transformers reads it; ParseModelConfig gives `config` back.
std::string ModelConfigToJson(const ModelConfig& config);

}  // namespace octet

#endif  // OCTET_WORKER_MODEL_CONFIG_H_
