#include "tests/reference/reference_mixtral.h"

#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "tests/reference/reference_ops.h"
#include "tests/reference/reference_sampling.h"

namespace octet::test {
namespace {

constexpr char kEmbedding[] = "model.embed_tokens.weight";

void Add(Values& x, const Values& y) {
  for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
}

bool IsNorm(absl::string_view name) { return absl::StrContains(name, "norm"); }

}  // namespace

ReferenceWeights RandomWeights(const ReferenceConfig& config, uint64_t seed) {
  Random random(seed);
  ReferenceWeights weights;
  const auto matrix = [&](const std::string& name, int64_t n, int64_t k) {
    weights[name] =
        random.Floats(n * k, 1.0f / std::sqrt(static_cast<float>(k)));
  };
  const auto norm = [&](const std::string& name) {
    weights[name] = random.Floats(config.hidden_size, 0.1f);
    for (float& value : weights[name]) value += 1.0f;
  };
  const int64_t hidden = config.hidden_size;
  matrix(kEmbedding, config.vocab_size, hidden);
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    const std::string attention = absl::StrCat(prefix, "self_attn.");
    const int64_t q = int64_t{config.num_heads} * config.head_dim;
    const int64_t kv = int64_t{config.num_kv_heads} * config.head_dim;
    norm(absl::StrCat(prefix, "input_layernorm.weight"));
    matrix(absl::StrCat(attention, "q_proj.weight"), q, hidden);
    matrix(absl::StrCat(attention, "k_proj.weight"), kv, hidden);
    matrix(absl::StrCat(attention, "v_proj.weight"), kv, hidden);
    matrix(absl::StrCat(attention, "o_proj.weight"), hidden, q);
    norm(absl::StrCat(prefix, "post_attention_layernorm.weight"));
    const std::string moe = absl::StrCat(prefix, "block_sparse_moe.");
    matrix(absl::StrCat(moe, "gate.weight"), config.num_experts, hidden);
    for (int e = 0; e < config.num_experts; ++e) {
      const std::string expert = absl::StrCat(moe, "experts.", e, ".");
      matrix(absl::StrCat(expert, "w1.weight"), config.ffn_size, hidden);
      matrix(absl::StrCat(expert, "w2.weight"), hidden, config.ffn_size);
      matrix(absl::StrCat(expert, "w3.weight"), config.ffn_size, hidden);
    }
  }
  norm("model.norm.weight");
  if (!config.tied_embeddings) {
    matrix("lm_head.weight", config.vocab_size, hidden);
  }
  return weights;
}

ReferenceMixtral::ReferenceMixtral(const ReferenceConfig& config,
                                   const ReferenceWeights& weights,
                                   const ReferenceRounding& rounding)
    : config_(config), rounding_(rounding) {
  for (const auto& [name, values] : weights) {
    weights_[name] =
        IsNorm(name) ? ToValues(values) : Rounded(ToValues(values));
  }
}

const Values& ReferenceMixtral::Weight(absl::string_view name) const {
  const auto found = weights_.find(name);
  OCTET_CHECK(found != weights_.end()) << "no weight " << name;
  return found->second;
}

const Values& ReferenceMixtral::LayerWeight(int layer,
                                            absl::string_view name) const {
  return Weight(absl::StrCat("model.layers.", layer, ".", name, ".weight"));
}

Values ReferenceMixtral::Rounded(Values values) const {
  if (rounding_.compute_bf16) {
    for (double& value : values) value = RoundToBF16(value);
  }
  return values;
}

Values ReferenceMixtral::SelfAttention(int layer, const Values& x) const {
  const int64_t hidden = config_.hidden_size;
  const int64_t dim = config_.head_dim;
  Values q = MatMul(x, LayerWeight(layer, "self_attn.q_proj"), hidden);
  Values k = MatMul(x, LayerWeight(layer, "self_attn.k_proj"), hidden);
  Values v = MatMul(x, LayerWeight(layer, "self_attn.v_proj"), hidden);
  const auto rotate = [&](Values& heads, int64_t num_heads) {
    for (size_t at = 0; at < heads.size(); at += dim) {
      const int64_t position = static_cast<int64_t>(at) / (num_heads * dim);
      Rotate(absl::MakeSpan(heads).subspan(at, dim), position,
             config_.rope_theta);
    }
  };
  rotate(q, config_.num_heads);
  rotate(k, config_.num_kv_heads);
  if (rounding_.cache_bf16) {
    for (double& value : k) value = RoundToBF16(value);
    for (double& value : v) value = RoundToBF16(value);
  }
  const AttentionShape shape{config_.num_heads, config_.num_kv_heads,
                             config_.head_dim, config_.sliding_window};
  return MatMul(Rounded(Attention(q, k, v, shape, 0)),
                LayerWeight(layer, "self_attn.o_proj"),
                config_.num_heads * dim);
}

Values ReferenceMixtral::Moe(int layer, const Values& x) const {
  const int64_t hidden = config_.hidden_size;
  const Values gate =
      MatMul(x, LayerWeight(layer, "block_sparse_moe.gate"), hidden);
  Values out(x.size());
  const size_t num_tokens = x.size() / hidden;
  for (size_t t = 0; t < num_tokens; ++t) {
    const Routing routing =
        Route(absl::MakeConstSpan(gate).subspan(t * config_.num_experts,
                                                config_.num_experts),
              config_.top_k);
    const Values row(x.begin() + t * hidden, x.begin() + (t + 1) * hidden);
    for (int slot = 0; slot < config_.top_k; ++slot) {
      const auto expert = [&](absl::string_view w) -> const Values& {
        return LayerWeight(layer, absl::StrCat("block_sparse_moe.experts.",
                                               routing.ids[slot], ".", w));
      };
      const Values inner =
          Rounded(SwiGlu(row, expert("w1"), expert("w3"), hidden));
      const Values outer =
          Rounded(MatMul(inner, expert("w2"), config_.ffn_size));
      for (int64_t i = 0; i < hidden; ++i) {
        out[t * hidden + i] += routing.weights[slot] * outer[i];
      }
    }
  }
  return out;
}

Values ReferenceMixtral::Logits(absl::Span<const int32_t> tokens) const {
  const int64_t hidden = config_.hidden_size;
  const Values& embedding = Weight(kEmbedding);
  Values x;
  for (int32_t token : tokens) {
    x.insert(x.end(), embedding.begin() + token * hidden,
             embedding.begin() + (token + 1) * hidden);
  }
  const auto norm = [&](const Values& weight) {
    return Rounded(RmsNorm(x, weight, config_.rms_norm_eps));
  };
  for (int layer = 0; layer < config_.num_layers; ++layer) {
    Add(x, SelfAttention(layer, norm(LayerWeight(layer, "input_layernorm"))));
    Add(x, Moe(layer, norm(LayerWeight(layer, "post_attention_layernorm"))));
  }
  return MatMul(norm(Weight("model.norm.weight")),
                Weight(config_.tied_embeddings ? kEmbedding : "lm_head.weight"),
                hidden);
}

std::vector<int32_t> ReferenceMixtral::Generate(std::vector<int32_t> tokens,
                                                int count) const {
  for (int i = 0; i < count; ++i) {
    const Values logits = Logits(tokens);
    tokens.push_back(DescendingOrder(absl::MakeConstSpan(logits).subspan(
        logits.size() - config_.vocab_size))[0]);
  }
  return tokens;
}

}  // namespace octet::test
