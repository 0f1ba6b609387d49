#include "worker/train/parameters.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "worker/train/trainable.h"

namespace octet {
namespace {

constexpr absl::string_view kWeight = ".weight";

class ParameterLister {
 public:
  explicit ParameterLister(const ModelConfig& config) : config_(config) {}

  std::vector<Parameter> List() {
    const int64_t hidden = config_.hidden_dim;
    Matrix("model.embed_tokens", WeightKind::kEmbedding, config_.vocab_size,
           hidden);
    for (layer_ = 0; layer_ < config_.num_layers; ++layer_) Layer();
    layer_ = -1;
    Norm("model.norm", WeightKind::kFinalNorm);
    if (!config_.tie_word_embeddings) {
      Matrix("lm_head", WeightKind::kLmHead, config_.vocab_size, hidden);
    }
    return std::move(parameters_);
  }

 private:
  void Layer() {
    const int64_t hidden = config_.hidden_dim, q = config_.q_dim(),
                  kv = config_.kv_dim();
    const std::string prefix = absl::StrCat("model.layers.", layer_, ".");
    Norm(prefix + "input_layernorm", WeightKind::kInputNorm);
    const std::string attention = prefix + "self_attn.";
    Matrix(attention + "q_proj", WeightKind::kQkv, q, hidden);
    Matrix(attention + "k_proj", WeightKind::kQkv, kv, hidden, q);
    Matrix(attention + "v_proj", WeightKind::kQkv, kv, hidden, q + kv);
    Matrix(attention + "o_proj", WeightKind::kO, hidden, q);
    Norm(prefix + "post_attention_layernorm", WeightKind::kPostAttentionNorm);
    const std::string moe = prefix + "block_sparse_moe.";
    Matrix(moe + "gate", WeightKind::kGate, config_.num_experts, hidden);
    const int64_t ffn = config_.ffn_dim;
    for (expert_ = 0; expert_ < config_.num_experts; ++expert_) {
      const std::string expert = absl::StrCat(moe, "experts.", expert_, ".");
      Matrix(expert + "w1", WeightKind::kW13, ffn, hidden);
      Matrix(expert + "w2", WeightKind::kW2, hidden, ffn);
      Matrix(expert + "w3", WeightKind::kW13, ffn, hidden, ffn);
    }
    expert_ = -1;
  }

  void Matrix(absl::string_view module, WeightKind kind, int64_t rows,
              int64_t cols, int64_t row_begin = 0) {
    Parameter parameter;
    parameter.name = absl::StrCat(module, kWeight);
    parameter.weight = {kind, layer_, expert_, WeightPart::kBase};
    parameter.rows = rows;
    parameter.cols = cols;
    parameter.row_begin = row_begin;
    parameters_.push_back(std::move(parameter));
  }

  void Norm(absl::string_view module, WeightKind kind) {
    Matrix(module, kind, 1, config_.hidden_dim);
    parameters_.back().vector = true;
  }

  const ModelConfig& config_;
  int layer_ = -1;
  int expert_ = -1;
  std::vector<Parameter> parameters_;
};

// Rows of the whole fused weight that holds `parameter`.
int64_t RowsOfWeight(const ModelConfig& config, const Parameter& parameter) {
  switch (parameter.weight.kind) {
    case WeightKind::kQkv:
      return config.q_dim() + 2 * config.kv_dim();
    case WeightKind::kW13:
      return 2 * config.ffn_dim;
    default:
      return parameter.rows;
  }
}

}  // namespace

std::vector<int64_t> Parameter::shape() const {
  if (vector) return {cols};
  return {rows, cols};
}

std::vector<Parameter> ModelParameters(const ModelConfig& config) {
  return ParameterLister(config).List();
}

std::vector<int> HoldersOf(const WeightId& weight, const Placement& placement) {
  std::vector<int> ranks;
  if (weight.expert_id >= 0) {
    const absl::Span<const int> holders = placement.RanksOf(weight.expert_id);
    ranks.assign(holders.begin(), holders.end());
  } else {
    for (int rank = 0; rank < placement.num_ranks(); ++rank) {
      ranks.push_back(rank);
    }
  }
  return ranks;
}

absl::string_view ModuleOf(absl::string_view parameter_name) {
  absl::ConsumeSuffix(&parameter_name, kWeight);
  if (!absl::ConsumeSuffix(&parameter_name, ".lora_A")) {
    absl::ConsumeSuffix(&parameter_name, ".lora_B");
  }
  return parameter_name;
}

float LoraScale(const v1::LoraConfig& lora) {
  return lora.has_alpha() ? lora.alpha() / static_cast<float>(lora.rank())
                          : 2.0f;
}

absl::StatusOr<ParameterSet> ParameterSet::Create(
    const ModelConfig& config, const v1::CreateRunRequest& request) {
  const std::vector<Parameter> all = ModelParameters(config);
  OCTET_ASSIGN_OR_RETURN(const std::vector<Trained> trained,
                         SelectTrained(all, request));
  ParameterSet set;
  const int64_t lora_rank = request.lora().rank();
  for (size_t i = 0; i < all.size(); ++i) {
    const Parameter& parameter = all[i];
    set.num_total_ += parameter.num_elements();
    if (trained[i] == Trained::kFull) set.parameters_.push_back(parameter);
    if (trained[i] != Trained::kLora) continue;
    Parameter a = parameter, b = parameter;
    const absl::string_view module = ModuleOf(parameter.name);
    a.name = absl::StrCat(module, ".lora_A", kWeight);
    a.weight.part = WeightPart::kLoraA;
    a.rows = lora_rank;
    b.name = absl::StrCat(module, ".lora_B", kWeight);
    b.weight.part = WeightPart::kLoraB;
    b.cols = lora_rank;
    auto target = std::find_if(
        set.lora_targets_.begin(), set.lora_targets_.end(),
        [&](const LoraTarget& t) { return t.weight == parameter.weight; });
    if (target == set.lora_targets_.end()) {
      LoraTarget fresh;
      fresh.weight = parameter.weight;
      fresh.n = RowsOfWeight(config, parameter);
      fresh.k = parameter.cols;
      fresh.lora_rank = lora_rank;
      target = set.lora_targets_.insert(target, std::move(fresh));
    }
    // Its rows of the stacked A, its columns of B.
    a.row_begin = b.col_begin = target->stacked_rank();
    set.num_total_ += a.num_elements() + b.num_elements();
    target->a.push_back(static_cast<int>(set.parameters_.size()));
    set.parameters_.push_back(std::move(a));
    target->b.push_back(static_cast<int>(set.parameters_.size()));
    set.parameters_.push_back(std::move(b));
  }
  for (size_t i = 0; i < set.parameters_.size(); ++i) {
    set.num_trainable_ += set.parameters_[i].num_elements();
    set.parameter_of_name_[set.parameters_[i].name] = static_cast<int>(i);
  }
  set.MakeSources(config);
  return set;
}

void ParameterSet::MakeSources(const ModelConfig& config) {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter& parameter = parameters_[i];
    auto [found, fresh] = source_of_weight_.try_emplace(
        parameter.weight, static_cast<int>(sources_.size()));
    if (fresh) {
      GradientSource source;
      source.weight = parameter.weight;
      source.cols = parameter.cols;
      source.rows = RowsOfWeight(config, parameter);
      sources_.push_back(std::move(source));
    }
    GradientSource& source = sources_[found->second];
    source.parts.push_back({static_cast<int>(i), source.num_elements});
    source.num_elements += parameter.num_elements();
  }
  for (const LoraTarget& target : lora_targets_) {
    WeightId id = target.weight;
    id.part = WeightPart::kLoraA;
    sources_[source_of_weight_[id]].rows = target.stacked_rank();
    id.part = WeightPart::kLoraB;
    GradientSource& b = sources_[source_of_weight_[id]];
    b.rows = target.n;
    b.cols = target.stacked_rank();
  }
  const int embedding = FindSource({WeightKind::kEmbedding});
  if (config.tie_word_embeddings && embedding >= 0) {
    GradientSource head = sources_[embedding];
    head.weight.kind = WeightKind::kLmHead;
    source_of_weight_[head.weight] = static_cast<int>(sources_.size());
    sources_.push_back(std::move(head));
  }
  for (GradientSource& source : sources_) {
    // Parts are by rising row, so they are the whole if they fill it; a B with
    // several blocks never does.
    source.whole = source.num_elements == source.rows * source.cols;
  }
}

int ParameterSet::FindSource(const WeightId& weight) const {
  const auto found = source_of_weight_.find(weight);
  return found == source_of_weight_.end() ? -1 : found->second;
}

int ParameterSet::FindParameter(absl::string_view name) const {
  const auto found = parameter_of_name_.find(name);
  return found == parameter_of_name_.end() ? -1 : found->second;
}

}  // namespace octet
