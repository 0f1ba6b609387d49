#include "tests/worker/model/tiny_model.h"

#include <cmath>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace octet::test {
namespace {

class Drawer {
 public:
  explicit Drawer(uint32_t seed) : random_(seed) {}

  // Normal, scaled for `inputs` inputs, rounded to bf16.
  std::vector<float> Matrix(int64_t rows, int64_t inputs, float gain = 1) {
    std::normal_distribution<float> normal(0, gain / std::sqrt(inputs));
    std::vector<float> out(rows * inputs);
    for (float& value : out) value = ToFloat(octet::ToBF16(normal(random_)));
    return out;
  }
  std::vector<float> Norm(int64_t size) {
    std::normal_distribution<float> normal(1, 0.1f);
    std::vector<float> out(size);
    for (float& value : out) value = ToFloat(octet::ToBF16(normal(random_)));
    return out;
  }

 private:
  std::mt19937 random_;
};

absl::StatusOr<std::unique_ptr<PackedMatrix>> Pack(
    Backend& backend, DType dtype, const std::vector<float>& values,
    int64_t n) {
  const int64_t k = static_cast<int64_t>(values.size()) / n;
  OCTET_ASSIGN_OR_RETURN(std::unique_ptr<PackedMatrix> matrix,
                         backend.NewPackedMatrix(dtype, n, k));
  OCTET_RETURN_IF_ERROR(backend.PackRows(
      *matrix, 0, ConstTensor(values.data(), DType::kF32, {n, k})));
  return matrix;
}

absl::StatusOr<OwnedTensor> Upload(Backend& backend, Stream& stream,
                                   const void* values, DType dtype,
                                   std::initializer_list<int64_t> dims) {
  OwnedTensor out;
  const size_t num_bytes = Tensor(nullptr, dtype, dims).num_bytes();
  OCTET_ASSIGN_OR_RETURN(out.buffer, backend.Allocate(num_bytes));
  out.view = Tensor(out.buffer->data(), dtype, dims);
  OCTET_RETURN_IF_ERROR(
      backend.CopyToDevice(out.view.data(), values, num_bytes, stream));
  return out;
}

absl::StatusOr<LayerWeights> PackLayer(const TinyLayer& layer,
                                       const ModelConfig& config,
                                       Backend& backend, Stream& stream,
                                       DType dtype,
                                       absl::Span<const int> experts) {
  const int64_t h = config.hidden_dim;
  LayerWeights out;
  OCTET_ASSIGN_OR_RETURN(
      out.input_norm,
      Upload(backend, stream, layer.input_norm.data(), DType::kF32, {h}));
  OCTET_ASSIGN_OR_RETURN(
      out.post_attention_norm,
      Upload(backend, stream, layer.post_attention_norm.data(), DType::kF32,
             {h}));
  OCTET_ASSIGN_OR_RETURN(out.qkv, Pack(backend, dtype, layer.qkv,
                                       config.q_dim() + 2 * config.kv_dim()));
  OCTET_ASSIGN_OR_RETURN(out.o, Pack(backend, dtype, layer.o, h));
  OCTET_ASSIGN_OR_RETURN(out.gate,
                         Pack(backend, dtype, layer.gate, config.num_experts));
  for (int id : experts) {
    ExpertWeights expert;
    expert.expert_id = id;
    OCTET_ASSIGN_OR_RETURN(
        expert.w13,
        Pack(backend, dtype, layer.experts[id].w13, 2 * config.ffn_dim));
    OCTET_ASSIGN_OR_RETURN(expert.w2,
                           Pack(backend, dtype, layer.experts[id].w2, h));
    out.experts.push_back(std::move(expert));
  }
  return out;
}

}  // namespace

ModelConfig TinyConfig() {
  ModelConfig config;
  config.vocab_size = 61;
  config.hidden_dim = 32;
  config.ffn_dim = 48;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 8;
  config.num_experts = 8;
  config.top_k = 2;
  config.max_position = 128;
  return config;
}

TinyModel MakeTinyModel(const ModelConfig& config, Routing routing,
                        uint32_t seed) {
  Drawer draw(seed);
  const int64_t h = config.hidden_dim, f = config.ffn_dim;
  TinyModel model;
  model.config = config;
  model.embedding = draw.Matrix(config.vocab_size, h, std::sqrt(h));
  // A direction that every token has, for the gate to hold on to.
  for (int64_t v = 0; v < config.vocab_size; ++v) model.embedding[v * h] = 16;
  model.final_norm = draw.Norm(h);
  model.lm_head = draw.Matrix(config.vocab_size, h);
  for (int i = 0; i < config.num_layers; ++i) {
    TinyLayer layer;
    layer.input_norm = draw.Norm(h);
    layer.post_attention_norm = draw.Norm(h);
    layer.qkv = draw.Matrix(config.q_dim() + 2 * config.kv_dim(), h);
    layer.o = draw.Matrix(h, config.q_dim());
    layer.gate = draw.Matrix(config.num_experts, h, 4);
    if (routing != Routing::kRandom) layer.gate.assign(layer.gate.size(), 0);
    for (int e = 0; e < config.num_experts; ++e) {
      if (routing == Routing::kSkewed) {
        layer.gate[e * h] = config.num_experts - e;
      }
      layer.experts.push_back({draw.Matrix(2 * f, h), draw.Matrix(h, f)});
    }
    model.layers.push_back(std::move(layer));
  }
  return model;
}

absl::StatusOr<ModelWeights> PackTinyModel(const TinyModel& model,
                                           Backend& backend, DType dtype,
                                           absl::Span<const int> experts) {
  const ModelConfig& config = model.config;
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream,
                         backend.NewStream());
  ModelWeights out;
  out.dtype = dtype;
  std::vector<BF16> rounded;
  for (float value : model.embedding) rounded.push_back(octet::ToBF16(value));
  const void* embedding = dtype == DType::kF32
                              ? static_cast<const void*>(model.embedding.data())
                              : rounded.data();
  OCTET_ASSIGN_OR_RETURN(out.embedding,
                         Upload(backend, *stream, embedding, dtype,
                                {config.vocab_size, config.hidden_dim}));
  for (const TinyLayer& layer : model.layers) {
    OCTET_ASSIGN_OR_RETURN(
        out.layers.emplace_back(),
        PackLayer(layer, config, backend, *stream, dtype, experts));
  }
  OCTET_ASSIGN_OR_RETURN(out.final_norm,
                         Upload(backend, *stream, model.final_norm.data(),
                                DType::kF32, {config.hidden_dim}));
  OCTET_ASSIGN_OR_RETURN(
      out.lm_head, Pack(backend, dtype, model.lm_head, config.vocab_size));
  OCTET_RETURN_IF_ERROR(backend.Synchronize(*stream));
  return out;
}

absl::StatusOr<std::unique_ptr<TinyRank>> NewTinyRank(
    const TinyModel& model, const TinyRankOptions& options,
    Communicator& communicator) {
  auto rank = std::make_unique<TinyRank>();
  OCTET_ASSIGN_OR_RETURN(rank->backend, NewCpuBackend(options.backend));
  OCTET_ASSIGN_OR_RETURN(
      rank->placement,
      Placement::Parse(options.placement, model.config.num_experts,
                       communicator.size()));
  OCTET_ASSIGN_OR_RETURN(
      rank->weights,
      PackTinyModel(model, *rank->backend, options.dtype,
                    rank->placement->LocalExperts(communicator.rank())));
  OCTET_ASSIGN_OR_RETURN(
      rank->cache, KvCache::Create(*rank->backend, model.config, options.dtype,
                                   options.num_blocks, options.block_tokens));
  TransformerLimits limits;
  limits.max_step_tokens = options.max_step_tokens;
  limits.max_logit_rows = 8;  // small, so that the head takes several rounds
  OCTET_ASSIGN_OR_RETURN(
      rank->transformer,
      Transformer::Create(rank->backend.get(), &communicator, model.config,
                          &*rank->placement, &rank->weights, &*rank->cache,
                          limits));
  return rank;
}

ReferenceMixtral ReferenceOf(const TinyModel& model, bool bf16) {
  const ModelConfig& config = model.config;
  ReferenceConfig reference;
  reference.vocab_size = config.vocab_size;
  reference.hidden_size = config.hidden_dim;
  reference.ffn_size = config.ffn_dim;
  reference.num_layers = config.num_layers;
  reference.num_heads = config.num_heads;
  reference.num_kv_heads = config.num_kv_heads;
  reference.head_dim = config.head_dim;
  reference.num_experts = config.num_experts;
  reference.top_k = config.top_k;
  reference.rms_norm_eps = config.rms_norm_eps;
  reference.rope_theta = config.rope_theta;
  reference.sliding_window = config.sliding_window;
  ReferenceWeights weights;
  weights["model.embed_tokens.weight"] = model.embedding;
  weights["model.norm.weight"] = model.final_norm;
  weights["lm_head.weight"] = model.lm_head;
  const auto part = [](const std::vector<float>& rows, int64_t cols,
                       int64_t begin, int64_t count) {
    return std::vector<float>(rows.begin() + begin * cols,
                              rows.begin() + (begin + count) * cols);
  };
  const int64_t h = config.hidden_dim, f = config.ffn_dim;
  const int64_t q = config.q_dim(), kv = config.kv_dim();
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const TinyLayer& layer = model.layers[i];
    const std::string name = absl::StrCat("model.layers.", i, ".");
    weights[name + "input_layernorm.weight"] = layer.input_norm;
    weights[name + "post_attention_layernorm.weight"] =
        layer.post_attention_norm;
    weights[name + "self_attn.q_proj.weight"] = part(layer.qkv, h, 0, q);
    weights[name + "self_attn.k_proj.weight"] = part(layer.qkv, h, q, kv);
    weights[name + "self_attn.v_proj.weight"] = part(layer.qkv, h, q + kv, kv);
    weights[name + "self_attn.o_proj.weight"] = layer.o;
    weights[name + "block_sparse_moe.gate.weight"] = layer.gate;
    for (size_t e = 0; e < layer.experts.size(); ++e) {
      const std::string expert =
          absl::StrCat(name, "block_sparse_moe.experts.", e, ".");
      weights[expert + "w1.weight"] = part(layer.experts[e].w13, h, 0, f);
      weights[expert + "w3.weight"] = part(layer.experts[e].w13, h, f, f);
      weights[expert + "w2.weight"] = layer.experts[e].w2;
    }
  }
  return ReferenceMixtral(reference, weights,
                          {.compute_bf16 = bf16, .cache_bf16 = bf16});
}

}  // namespace octet::test
