// The whole Mixtral forward pass in double precision, one token list at a time,
// no cache, no batching: the oracle of the transformer's tests. Follows Hugging
// Face's MixtralForCausalLM.
#ifndef OCTET_TESTS_REFERENCE_REFERENCE_MIXTRAL_H_
#define OCTET_TESTS_REFERENCE_REFERENCE_MIXTRAL_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tests/reference/host_tensor.h"

namespace octet::test {

struct ReferenceConfig {
  int64_t vocab_size = 64;   // V
  int64_t hidden_size = 32;  // H
  int64_t ffn_size = 48;     // F
  int num_layers = 2;        // L
  int num_heads = 4;         // N_q
  int num_kv_heads = 2;      // N_kv
  int head_dim = 8;          // D; N_q D need not be H
  int num_experts = 8;       // E
  int top_k = 2;             // K
  double rms_norm_eps = 1e-5;
  double rope_theta = 1e6;
  int64_t sliding_window = 0;    // 0 = none
  bool tied_embeddings = false;  // lm_head is model.embed_tokens
};

// Where values are rounded to bf16, as Octet's forward pass does.
struct ReferenceRounding {
  // Weights of every product, and what it eats: norms' outputs, attention's
  // output, SwiGLU's output; and an expert's output, which travels in that
  // dtype to the sum of the K slots.
  bool compute_bf16 = false;
  bool cache_bf16 = false;  // rotated keys, and values
};

// Weights by Hugging Face name ("model.layers.0.self_attn.q_proj.weight"),
// row-major [outputs, inputs]; experts as "...block_sparse_moe.experts.3.w1".
using ReferenceWeights = std::map<std::string, std::vector<float>>;

// Seeded weights of every tensor that the config has; matrices scaled by 1 /
// sqrt(inputs), norms about 1.
ReferenceWeights RandomWeights(const ReferenceConfig& config, uint64_t seed);

class ReferenceMixtral {
 public:
  ReferenceMixtral(const ReferenceConfig& config,
                   const ReferenceWeights& weights,
                   const ReferenceRounding& rounding = {});

  // tokens [S] at positions 0 .. S - 1 -> logits [S, V].
  Values Logits(absl::Span<const int32_t> tokens) const;

  // Greedy continuation of `tokens` by `count` tokens, each from a full pass.
  std::vector<int32_t> Generate(std::vector<int32_t> tokens, int count) const;

 private:
  const Values& Weight(absl::string_view name) const;
  // "model.layers.3." + name
  const Values& LayerWeight(int layer, absl::string_view name) const;
  Values Rounded(Values values) const;  // to bf16 when compute_bf16
  Values SelfAttention(int layer, const Values& x) const;
  Values Moe(int layer, const Values& x) const;

  const ReferenceConfig config_;
  const ReferenceRounding rounding_;
  std::map<std::string, Values, std::less<>> weights_;
};

}  // namespace octet::test

#endif  // OCTET_TESTS_REFERENCE_REFERENCE_MIXTRAL_H_
