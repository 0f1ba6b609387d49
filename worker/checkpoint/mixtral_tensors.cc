#include "worker/checkpoint/mixtral_tensors.h"

#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/logging.h"
#include "base/status_macros.h"

namespace octet {
namespace {

constexpr absl::string_view kEmbedding = "model.embed_tokens.weight";
constexpr absl::string_view kFinalNorm = "model.norm.weight";
constexpr absl::string_view kHead = "lm_head.weight";
constexpr absl::string_view kOldMoe = "block_sparse_moe.";
constexpr absl::string_view kNewMoe = "mlp.";

std::string LayerPrefix(int64_t layer) {
  return absl::StrCat("model.layers.", layer, ".");
}

// Finds tensors, checks them, and remembers which ones the model uses.
class Mapper {
 public:
  Mapper(const HfCheckpoint& checkpoint, const ModelConfig& config)
      : checkpoint_(checkpoint), config_(config) {}

  absl::StatusOr<MixtralSource> Map() {
    // First: a wrong number of experts or layers also shows as a wrong shape or
    // a missing tensor, which says less.
    OCTET_RETURN_IF_ERROR(CheckIndices());
    const int64_t vocab = config_.vocab_size;
    const int64_t hidden = config_.hidden_dim;
    MixtralSource source;
    OCTET_ASSIGN_OR_RETURN(source.embedding, Take(kEmbedding, {vocab, hidden}));
    for (int layer = 0; layer < config_.num_layers; ++layer) {
      OCTET_ASSIGN_OR_RETURN(LayerSource mapped, MapLayer(layer));
      source.layers.push_back(std::move(mapped));
    }
    OCTET_ASSIGN_OR_RETURN(source.final_norm, Take(kFinalNorm, {hidden}));
    if (!config_.tie_word_embeddings) {
      OCTET_ASSIGN_OR_RETURN(source.lm_head, Take(kHead, {vocab, hidden}));
    }
    OCTET_RETURN_IF_ERROR(CheckRest());
    return source;
  }

 private:
  // The whole tensor as a matrix of its last dimension's columns.
  absl::StatusOr<RowRange> Take(absl::string_view name,
                                const std::vector<int64_t>& shape) {
    const std::optional<TensorRef> ref = checkpoint_.Find(name);
    if (!ref.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat(checkpoint_.listing_path(), ": tensor '", name,
                       "' is missing, expected shape ", ShapeToString(shape)));
    }
    const std::string where =
        absl::StrCat(ref->file->path(), ": tensor '", name, "' has ");
    if (ref->entry->shape != shape) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, "shape ", ShapeToString(ref->entry->shape),
                       ", expected ", ShapeToString(shape)));
    }
    const std::optional<DType> dtype = SafetensorsDType(ref->entry->dtype);
    if (dtype != DType::kF32 && dtype != DType::kBF16 && dtype != DType::kF16) {
      return absl::InvalidArgumentError(absl::StrCat(
          where, "dtype ", ref->entry->dtype, ", expected F32, BF16 or F16"));
    }
    used_.insert(ref->entry);
    RowRange range{ref->file, ref->entry, *dtype, 0, 1, shape.back()};
    for (size_t i = 0; i + 1 < shape.size(); ++i) range.rows *= shape[i];
    return range;
  }

  // Matrices of one width, put one below the other.
  absl::StatusOr<MatrixSource> Stack(
      std::initializer_list<std::pair<std::string, int64_t>> names_and_rows,
      int64_t cols) {
    MatrixSource matrix;
    for (const auto& [name, rows] : names_and_rows) {
      OCTET_ASSIGN_OR_RETURN(RowRange part, Take(name, {rows, cols}));
      matrix.parts.push_back(part);
    }
    return matrix;
  }

  absl::StatusOr<LayerSource> MapLayer(int layer) {
    const int64_t hidden = config_.hidden_dim;
    const int64_t q_dim = config_.q_dim();
    const int64_t kv_dim = config_.kv_dim();
    const std::string prefix = LayerPrefix(layer);
    const std::string attention = prefix + "self_attn.";
    LayerSource source;
    OCTET_ASSIGN_OR_RETURN(source.input_norm,
                           Take(prefix + "input_layernorm.weight", {hidden}));
    OCTET_ASSIGN_OR_RETURN(source.qkv,
                           Stack({{attention + "q_proj.weight", q_dim},
                                  {attention + "k_proj.weight", kv_dim},
                                  {attention + "v_proj.weight", kv_dim}},
                                 hidden));
    OCTET_ASSIGN_OR_RETURN(
        source.o, Stack({{attention + "o_proj.weight", hidden}}, q_dim));
    OCTET_ASSIGN_OR_RETURN(
        source.post_attention_norm,
        Take(prefix + "post_attention_layernorm.weight", {hidden}));

    const bool is_new =
        checkpoint_.Find(absl::StrCat(prefix, kNewMoe, "gate.weight"))
            .has_value();
    const std::string moe = absl::StrCat(prefix, is_new ? kNewMoe : kOldMoe);
    OCTET_ASSIGN_OR_RETURN(
        source.gate,
        Stack({{moe + "gate.weight", config_.num_experts}}, hidden));
    const std::string experts = moe + "experts.";
    if (checkpoint_.Find(experts + "gate_up_proj").has_value()) {
      OCTET_RETURN_IF_ERROR(MapFusedExperts(experts, &source));
    } else {
      OCTET_RETURN_IF_ERROR(MapExperts(experts, &source));
    }
    return source;
  }

  absl::Status MapExperts(const std::string& prefix, LayerSource* source) {
    const int64_t hidden = config_.hidden_dim;
    const int64_t ffn = config_.ffn_dim;
    for (int expert = 0; expert < config_.num_experts; ++expert) {
      const std::string name = absl::StrCat(prefix, expert, ".");
      ExpertSource mapped;
      OCTET_ASSIGN_OR_RETURN(mapped.w13, Stack({{name + "w1.weight", ffn},
                                                {name + "w3.weight", ffn}},
                                               hidden));
      OCTET_ASSIGN_OR_RETURN(mapped.w2,
                             Stack({{name + "w2.weight", hidden}}, ffn));
      source->experts.push_back(std::move(mapped));
    }
    return absl::OkStatus();
  }

  absl::Status MapFusedExperts(const std::string& prefix, LayerSource* source) {
    const int64_t hidden = config_.hidden_dim;
    const int64_t ffn = config_.ffn_dim;
    const int64_t experts = config_.num_experts;
    OCTET_ASSIGN_OR_RETURN(RowRange w13, Take(prefix + "gate_up_proj",
                                              {experts, 2 * ffn, hidden}));
    OCTET_ASSIGN_OR_RETURN(RowRange w2,
                           Take(prefix + "down_proj", {experts, hidden, ffn}));
    w13.rows = 2 * ffn;
    w2.rows = hidden;
    for (int64_t expert = 0; expert < experts; ++expert) {
      w13.first_row = expert * w13.rows;
      w2.first_row = expert * w2.rows;
      source->experts.push_back({{{w13}}, {{w2}}});
    }
    return absl::OkStatus();
  }

  // Layers and experts that the config does not know of.
  absl::Status CheckIndices() const {
    for (const std::string& name : checkpoint_.names()) {
      const std::vector<absl::string_view> words = absl::StrSplit(name, '.');
      int64_t index = 0;
      if (words.size() < 4 || words[0] != "model" || words[1] != "layers" ||
          !absl::SimpleAtoi(words[2], &index)) {
        continue;
      }
      if (index < 0 || index >= config_.num_layers) {
        return Beyond(name, "num_hidden_layers", config_.num_layers);
      }
      if (words.size() >= 6 && words[4] == "experts" &&
          absl::SimpleAtoi(words[5], &index) &&
          (index < 0 || index >= config_.num_experts)) {
        return Beyond(name, "num_local_experts", config_.num_experts);
      }
    }
    return absl::OkStatus();
  }

  absl::Status Beyond(const std::string& name, absl::string_view key,
                      int64_t value) const {
    return absl::InvalidArgumentError(
        absl::StrCat(checkpoint_.Find(name)->file->path(), ": tensor '", name,
                     "' is beyond the config's '", key, "' of ", value));
  }

  absl::Status CheckRest() const {
    int64_t num_unknown = 0;
    std::string example;
    for (const std::string& name : checkpoint_.names()) {
      const TensorRef ref = *checkpoint_.Find(name);
      // inv_freq is a constant that old checkpoints carry along; a tied head
      // may be stored beside the embedding.
      if (used_.contains(ref.entry) || name == kHead ||
          absl::EndsWith(name, "rotary_emb.inv_freq")) {
        continue;
      }
      if (absl::EndsWith(name, ".bias")) {
        return absl::InvalidArgumentError(
            absl::StrCat(ref.file->path(), ": tensor '", name,
                         "' is a bias, expected none in a Mixtral model"));
      }
      ++num_unknown;
      if (example.empty()) example = name;
    }
    if (num_unknown > 0) {
      OCTET_LOG(WARNING) << checkpoint_.listing_path() << ": " << num_unknown
                         << " tensors are no part of Mixtral and are ignored, "
                            "for example '"
                         << example << "'";
    }
    return absl::OkStatus();
  }

  const HfCheckpoint& checkpoint_;
  const ModelConfig& config_;
  absl::flat_hash_set<const SafetensorsEntry*> used_;
};

bool IsBF16(const MatrixSource& matrix) {
  for (const RowRange& part : matrix.parts) {
    if (part.dtype != DType::kBF16) return false;
  }
  return true;
}

}  // namespace

std::vector<TensorSpec> MixtralTensors(const ModelConfig& config, DType dtype) {
  const int64_t hidden = config.hidden_dim;
  std::vector<TensorSpec> tensors;
  const auto add = [&](std::string name, std::vector<int64_t> shape) {
    tensors.push_back({std::move(name), dtype, std::move(shape)});
  };
  add(std::string(kEmbedding), {config.vocab_size, hidden});
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const std::string prefix = LayerPrefix(layer);
    const std::string attention = prefix + "self_attn.";
    add(attention + "q_proj.weight", {config.q_dim(), hidden});
    add(attention + "k_proj.weight", {config.kv_dim(), hidden});
    add(attention + "v_proj.weight", {config.kv_dim(), hidden});
    add(attention + "o_proj.weight", {hidden, config.q_dim()});
    const std::string moe = absl::StrCat(prefix, kOldMoe);
    add(moe + "gate.weight", {config.num_experts, hidden});
    for (int expert = 0; expert < config.num_experts; ++expert) {
      const std::string name = absl::StrCat(moe, "experts.", expert, ".");
      add(name + "w1.weight", {config.ffn_dim, hidden});
      add(name + "w2.weight", {hidden, config.ffn_dim});
      add(name + "w3.weight", {config.ffn_dim, hidden});
    }
    add(prefix + "input_layernorm.weight", {hidden});
    add(prefix + "post_attention_layernorm.weight", {hidden});
  }
  add(std::string(kFinalNorm), {hidden});
  if (!config.tie_word_embeddings) {
    add(std::string(kHead), {config.vocab_size, hidden});
  }
  return tensors;
}

int64_t MatrixSource::rows() const {
  int64_t total = 0;
  for (const RowRange& part : parts) total += part.rows;
  return total;
}

int64_t MatrixSource::num_bytes() const {
  int64_t total = 0;
  for (const RowRange& part : parts) total += part.num_bytes();
  return total;
}

absl::StatusOr<MixtralSource> MapMixtral(const HfCheckpoint& checkpoint,
                                         const ModelConfig& config) {
  return Mapper(checkpoint, config).Map();
}

DType ExactComputeDType(const MixtralSource& source) {
  bool all_bf16 =
      source.embedding.dtype == DType::kBF16 &&
      (!source.lm_head.has_value() || source.lm_head->dtype == DType::kBF16);
  for (const LayerSource& layer : source.layers) {
    all_bf16 =
        all_bf16 && IsBF16(layer.qkv) && IsBF16(layer.o) && IsBF16(layer.gate);
    for (const ExpertSource& expert : layer.experts) {
      all_bf16 = all_bf16 && IsBF16(expert.w13) && IsBF16(expert.w2);
    }
  }
  return all_bf16 ? DType::kBF16 : DType::kF32;
}

}  // namespace octet
