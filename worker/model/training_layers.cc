#include "worker/model/training_layers.h"

#include <algorithm>
#include <numeric>

#include "base/status_macros.h"
#include "kernels/ops.h"
#include "kernels/training_ops.h"
#include "worker/model/moe_views.h"
#include "worker/nn/phase_clock.h"

namespace octet {
namespace {

// Tokens of a block of the layers' own caches: documents end in a block of
// their own, so a few are left empty.
constexpr int kBlockTokens = 16;

MoeShape ShapeOf(const ModelConfig& config, DType dtype,
                 int64_t max_expert_rows) {
  MoeShape shape;
  shape.num_layers = config.num_layers;
  shape.num_experts = config.num_experts;
  shape.top_k = config.top_k;
  shape.hidden_dim = config.hidden_dim;
  shape.ffn_dim = config.ffn_dim;
  shape.dtype = dtype;
  shape.max_expert_rows = max_expert_rows;
  return shape;
}

}  // namespace

int64_t TrainingLayers::Tape::size_bytes() const {
  return moe.size_bytes() +
         static_cast<int64_t>(q.size_bytes() + out.size_bytes() +
                              kv.size_bytes() + x_mid.size_bytes());
}

TrainingLayers::TrainingLayers(Backend* backend, Communicator* communicator,
                               const ModelConfig& config,
                               const Placement* placement,
                               const ModelWeights* weights,
                               const TrainingLayersOptions& options,
                               RouterLosses* router_losses)
    : backend_(backend),
      config_(config),
      weights_(weights),
      options_(options),
      router_losses_(router_losses),
      attention_(backend, config, weights->dtype),
      attention_gradient_(backend, config, weights->dtype),
      moe_(backend, communicator, placement,
           ShapeOf(config, weights->dtype, options.max_expert_rows)),
      moe_weights_(
          ViewMoe(*weights, placement->LocalExperts(communicator->rank()))),
      shared_tape_(backend),
      shared_inputs_{Scratch(backend), Scratch(backend)},
      ids_memory_(backend),
      row_keys_(backend),
      normed_(backend),
      dnormed_(backend) {
  for (int layer = 0; layer < config.num_layers; ++layer) {
    tapes_.push_back(std::make_unique<Tape>(backend));
  }
  for (int layer = 0; layer <= config.num_layers; ++layer) {
    inputs_.push_back(std::make_unique<Scratch>(backend));
  }
}

bool TrainingLayers::KeepsTape(int layer) const {
  return step_.keep && !options_.recompute && layer >= options_.first_layer;
}

TrainingLayers::Tape& TrainingLayers::TapeOf(int layer) {
  return KeepsTape(layer) ? *tapes_[layer] : shared_tape_;
}

absl::StatusOr<Tensor> TrainingLayers::InputOf(int layer) {
  const bool kept = layer == config_.num_layers ||
                    (step_.keep && layer >= options_.first_layer);
  Scratch& memory = kept ? *inputs_[layer] : shared_inputs_[layer % 2];
  return memory.Get(DType::kF32,
                    {step_.layout->num_tokens(), config_.hidden_dim},
                    *step_.stream);
}

absl::StatusOr<TrainingLayers::Views> TrainingLayers::ViewsOf(int layer) {
  Stream& stream = *step_.stream;
  const int64_t t = step_.layout->num_tokens();
  Tape& tape = TapeOf(layer);
  Views views;
  OCTET_ASSIGN_OR_RETURN(views.x_in, InputOf(layer));
  OCTET_ASSIGN_OR_RETURN(
      views.x_mid,
      tape.x_mid.Get(DType::kF32, {t, config_.hidden_dim}, stream));
  OCTET_ASSIGN_OR_RETURN(views.attention.q,
                         tape.q.Get(DType::kF32, {t, config_.q_dim()}, stream));
  OCTET_ASSIGN_OR_RETURN(
      views.attention.out,
      tape.out.Get(weights_->dtype, {t, config_.q_dim()}, stream));
  views.cache.dtype = weights_->dtype;
  views.cache.num_blocks = num_blocks_;
  views.cache.num_kv_heads = config_.num_kv_heads;
  views.cache.block_tokens = kBlockTokens;
  views.cache.head_dim = config_.head_dim;
  OCTET_ASSIGN_OR_RETURN(
      const Tensor kv,
      tape.kv.Get(weights_->dtype,
                  {2 * num_blocks_ * kBlockTokens, config_.kv_dim()}, stream));
  views.cache.keys = kv.data();
  views.cache.values = static_cast<char*>(kv.data()) + views.cache.bytes_each();
  return views;
}

absl::StatusOr<Tensor> TrainingLayers::Normed() {
  return normed_.Get(weights_->dtype,
                     {step_.layout->num_tokens(), config_.hidden_dim},
                     *step_.stream);
}

// Where the rows lie in attention, and what names them in dropout.
absl::Status TrainingLayers::Prepare(const Step& step) {
  step_ = step;
  shared_tape_layer_ = -1;
  const TrainingLayout& layout = *step.layout;
  const std::vector<int64_t>& begin = layout.document_begin;
  num_blocks_ = 0;
  slices_.clear();
  for (size_t d = 0; d + 1 < begin.size(); ++d) {
    num_blocks_ += (begin[d + 1] - begin[d] + kBlockTokens - 1) / kBlockTokens;
  }
  blocks_.resize(num_blocks_);
  std::iota(blocks_.begin(), blocks_.end(), 0);
  int64_t block = 0;
  for (size_t d = 0; d + 1 < begin.size(); ++d) {
    const int64_t length = begin[d + 1] - begin[d];
    const int64_t count = (length + kBlockTokens - 1) / kBlockTokens;
    slices_.push_back(
        {0, absl::MakeConstSpan(layout.token_ids).subspan(begin[d], length),
         absl::MakeConstSpan(blocks_).subspan(block, count)});
    block += count;
  }
  moe_batch_ = {
      layout.rank_tokens, &layout.slot_map, layout.slot_rows, step.drop, {}};
  moe_batch_.dropout.run_seed = step.seed;
  const int64_t t = layout.num_tokens();
  if (t == 0) return absl::OkStatus();
  Stream& stream = *step.stream;
  OCTET_RETURN_IF_ERROR(attention_.Prepare(slices_, kBlockTokens, stream));
  OCTET_ASSIGN_OR_RETURN(ids_, ids_memory_.Get(DType::kI32, {t}, stream));
  OCTET_RETURN_IF_ERROR(backend_->CopyToDevice(
      ids_.data(), layout.token_ids.data(), ids_.num_bytes(), stream));
  if (!step.drop) return absl::OkStatus();
  OCTET_ASSIGN_OR_RETURN(const Tensor keys,
                         row_keys_.Get(DType::kI64, {t}, stream));
  moe_batch_.dropout.row_keys = keys;
  return backend_->CopyToDevice(keys.data(), layout.row_keys.data(),
                                keys.num_bytes(), stream);
}

absl::StatusOr<ConstTensor> TrainingLayers::Forward(
    const Step& step, std::vector<std::vector<int32_t>>* routes) {
  OCTET_RETURN_IF_ERROR(Prepare(step));
  ViewAdapters(*weights_, absl::MakeSpan(moe_weights_));
  if (step.layout->num_tokens() > 0) {
    OCTET_ASSIGN_OR_RETURN(const Tensor x, InputOf(0));
    OCTET_RETURN_IF_ERROR(ops::Embedding(*backend_, weights_->embedding.view,
                                         ids_, x, *step.stream));
  }
  for (int layer = 0; layer < config_.num_layers; ++layer) {
    OCTET_RETURN_IF_ERROR(RunLayer(layer));
    const MoeTape& tape = TapeOf(layer).moe;
    PhaseClock clock;
    OCTET_RETURN_IF_ERROR(router_losses_->Collect(layer, tape, *step.stream));
    clock.AddTo(seconds_.moe.router);
    if (routes != nullptr) routes->push_back(tape.choices);
  }
  OCTET_ASSIGN_OR_RETURN(const Tensor x, InputOf(config_.num_layers));
  return ConstTensor(x);
}

absl::Status TrainingLayers::RunLayer(int layer) {
  TrainingBackend& training = *backend_->training();
  Stream& stream = *step_.stream;
  OCTET_ASSIGN_OR_RETURN(const Views views, ViewsOf(layer));
  OCTET_ASSIGN_OR_RETURN(const Tensor normed, Normed());
  OCTET_ASSIGN_OR_RETURN(const Tensor x_out, InputOf(layer + 1));
  if (step_.layout->num_tokens() > 0) {
    PhaseClock clock;
    OCTET_RETURN_IF_ERROR(RunAttention(layer, views, normed));
    OCTET_RETURN_IF_ERROR(
        train_ops::Cast(training, views.x_mid, x_out, stream));
    clock.AddTo(seconds_.attention);
  }
  const auto& routes = step_.layout->layer_routes;
  OCTET_RETURN_IF_ERROR(moe_.Forward(
      moe_weights_[layer], normed, moe_batch_,
      routes.empty() ? absl::Span<const int32_t>() : routes[layer], x_out,
      TapeOf(layer).moe, {step_.step_id, layer, &stream}, &seconds_.moe));
  if (!KeepsTape(layer)) shared_tape_layer_ = layer;
  return absl::OkStatus();
}

// x_mid = x_in + attention(norm(x_in)), and the norm that the experts read.
absl::Status TrainingLayers::RunAttention(int layer, const Views& views,
                                          Tensor normed) {
  Stream& stream = *step_.stream;
  const LayerWeights& weights = weights_->layers[layer];
  OCTET_RETURN_IF_ERROR(ops::RmsNorm(*backend_, views.x_in,
                                     weights.input_norm.view,
                                     config_.rms_norm_eps, normed, stream));
  OCTET_RETURN_IF_ERROR(
      train_ops::Cast(*backend_->training(), views.x_in, views.x_mid, stream));
  OCTET_RETURN_IF_ERROR(attention_.ForwardTraining(
      layer, weights, views.cache, normed, moe_batch_.dropout, views.attention,
      views.x_mid, stream));
  return ops::RmsNorm(*backend_, views.x_mid, weights.post_attention_norm.view,
                      config_.rms_norm_eps, normed, stream);
}

absl::Status TrainingLayers::Backward(double scale, Tensor dx,
                                      GradientSink& sink) {
  for (int layer = config_.num_layers - 1; layer >= options_.first_layer;
       --layer) {
    if (!KeepsTape(layer) && shared_tape_layer_ != layer) {
      OCTET_RETURN_IF_ERROR(RunLayer(layer));
    }
    OCTET_RETURN_IF_ERROR(LayerBackward(layer, scale, dx, sink));
    shared_tape_layer_ = -1;  // its hidden values have been overwritten
  }
  return backend_->Synchronize(*step_.stream);
}

absl::Status TrainingLayers::LayerBackward(int layer, double scale, Tensor dx,
                                           GradientSink& sink) {
  Stream& stream = *step_.stream;
  const bool any = step_.layout->num_tokens() > 0;
  const LayerWeights& weights = weights_->layers[layer];
  OCTET_ASSIGN_OR_RETURN(const Views views, ViewsOf(layer));
  OCTET_ASSIGN_OR_RETURN(const Tensor normed, Normed());
  OCTET_ASSIGN_OR_RETURN(
      const Tensor dnormed,
      dnormed_.Get(DType::kF32, {normed.rows(), config_.hidden_dim}, stream));
  if (any) {
    OCTET_RETURN_IF_ERROR(ops::RmsNorm(*backend_, views.x_mid,
                                       weights.post_attention_norm.view,
                                       config_.rms_norm_eps, normed, stream));
  }
  OCTET_ASSIGN_OR_RETURN(const RouterGradient router,
                         router_losses_->Gradient(layer, scale, stream));
  OCTET_RETURN_IF_ERROR(moe_.Backward(
      moe_weights_[layer], normed, moe_batch_, dx, router, TapeOf(layer).moe,
      dnormed, sink, {step_.step_id, layer, &stream}, &seconds_.moe));
  if (!any) return absl::OkStatus();
  PhaseClock clock;
  OCTET_RETURN_IF_ERROR(
      NormBackward({WeightKind::kPostAttentionNorm, layer}, views.x_mid,
                   weights.post_attention_norm.view, dnormed, dx, sink));
  OCTET_RETURN_IF_ERROR(ops::RmsNorm(*backend_, views.x_in,
                                     weights.input_norm.view,
                                     config_.rms_norm_eps, normed, stream));
  OCTET_RETURN_IF_ERROR(attention_gradient_.Backward(
      layer, weights, attention_, views.cache, normed, views.attention,
      moe_batch_.dropout, step_.layout->slot_rows, dx, sink, dnormed, stream));
  OCTET_RETURN_IF_ERROR(NormBackward({WeightKind::kInputNorm, layer},
                                     views.x_in, weights.input_norm.view,
                                     dnormed, dx, sink));
  clock.AddTo(seconds_.attention);
  return absl::OkStatus();
}

// dx += gradient of the norm's input, which dx is the residual gradient of.
absl::Status TrainingLayers::NormBackward(const WeightId& id, ConstTensor x,
                                          ConstTensor weight, ConstTensor dy,
                                          Tensor dx, GradientSink& sink) {
  Stream& stream = *step_.stream;
  if (sink.Wants(id)) {
    OCTET_RETURN_IF_ERROR(sink.AddNorm(id, x, config_.rms_norm_eps, dy,
                                       step_.layout->slot_rows, stream));
  }
  return train_ops::RmsNormBackward(*backend_->training(), x, weight,
                                    config_.rms_norm_eps, dy, dx, stream);
}

absl::Status TrainingLayers::EmbeddingBackward(ConstTensor dx,
                                               GradientSink& sink) {
  if (step_.layout->num_tokens() == 0 ||
      !sink.Wants({WeightKind::kEmbedding})) {
    return absl::OkStatus();
  }
  OCTET_RETURN_IF_ERROR(
      sink.AddEmbedding(dx, ids_, step_.layout->slot_rows, *step_.stream));
  return backend_->Synchronize(*step_.stream);
}

int64_t TrainingLayers::size_bytes() const {
  int64_t total = attention_.size_bytes() + attention_gradient_.size_bytes() +
                  moe_.size_bytes() + shared_tape_.size_bytes();
  for (const auto& tape : tapes_) total += tape->size_bytes();
  for (const auto& input : inputs_) {
    total += static_cast<int64_t>(input->size_bytes());
  }
  return total +
         static_cast<int64_t>(
             shared_inputs_[0].size_bytes() + shared_inputs_[1].size_bytes() +
             ids_memory_.size_bytes() + row_keys_.size_bytes() +
             normed_.size_bytes() + dnormed_.size_bytes());
}

int64_t TrainingLayers::NumTapes(const ModelConfig& config,
                                 const TrainingLayersOptions& options) {
  if (options.recompute) return 1;
  return config.num_layers - options.first_layer +
         (options.first_layer > 0 ? 1 : 0);
}

int64_t TrainingLayers::Bytes(const ModelConfig& config, DType dtype,
                              const TrainingLayersOptions& options,
                              int64_t num_tokens, int64_t num_expert_rows) {
  const MoeShape shape = ShapeOf(config, dtype, options.max_expert_rows);
  const int64_t width = static_cast<int64_t>(SizeOf(dtype));
  const int64_t q = config.q_dim(), kv = config.kv_dim();
  const int64_t layers = config.num_layers - options.first_layer;
  const int64_t tape =
      num_tokens * ((4 + width) * q + 2 * width * kv + 4 * config.hidden_dim) +
      MoeTape::Bytes(shape, num_tokens, num_expert_rows);
  const int64_t inputs = layers + 1 + (options.first_layer > 0 ? 2 : 0);
  // Attention's own positions and qkv; ids, keys, norms and their gradients.
  const int64_t rest =
      num_tokens * (4 * (q + 2 * kv) + 24 + (4 + width) * config.hidden_dim);
  return NumTapes(config, options) * tape +
         inputs * num_tokens * config.hidden_dim * 4 + rest +
         AttentionGradient::Bytes(config, dtype, num_tokens) +
         MoeTraining::WorkspaceBytes(shape, num_tokens, num_expert_rows);
}

}  // namespace octet
