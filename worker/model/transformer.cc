#include "worker/model/transformer.h"

#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "kernels/ops.h"
#include "worker/model/moe_views.h"

namespace octet {
namespace {

MoeShape ShapeOf(const ModelConfig& config, DType dtype,
                 const TransformerLimits& limits) {
  MoeShape shape;
  shape.num_layers = config.num_layers;
  shape.num_experts = config.num_experts;
  shape.top_k = config.top_k;
  shape.hidden_dim = config.hidden_dim;
  shape.ffn_dim = config.ffn_dim;
  shape.dtype = dtype;
  shape.max_chunks = limits.moe_chunks;
  shape.min_chunk_tokens = limits.min_chunk_tokens;
  return shape;
}

double SecondsSince(absl::Time start) {
  return absl::ToDoubleSeconds(absl::Now() - start);
}

}  // namespace

Transformer::Transformer(Backend* backend, Communicator* communicator,
                         const ModelConfig& config, const Placement* placement,
                         const ModelWeights* weights, const KvCache* cache,
                         const TransformerLimits& limits)
    : backend_(backend),
      config_(config),
      weights_(weights),
      cache_(cache),
      limits_(limits),
      attention_(backend, config, weights->dtype),
      moe_(backend, communicator, placement,
           ShapeOf(config, weights->dtype, limits)),
      moe_weights_(
          ViewMoe(*weights, placement->LocalExperts(communicator->rank()))),
      ids_(backend),
      x_(backend),
      normed_(backend),
      head_rows_(backend),
      head_x_(backend),
      head_normed_(backend),
      logits_(backend) {}

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Create(
    Backend* backend, Communicator* communicator, const ModelConfig& config,
    const Placement* placement, const ModelWeights* weights,
    const KvCache* cache, const TransformerLimits& limits) {
  std::unique_ptr<Transformer> model(new Transformer(
      backend, communicator, config, placement, weights, cache, limits));
  OCTET_ASSIGN_OR_RETURN(model->stream_, backend->NewStream());
  Stream& stream = *model->stream_;
  const int64_t h = config.hidden_dim;
  const int64_t t = limits.max_step_tokens, n = limits.max_logit_rows;
  OCTET_RETURN_IF_ERROR(model->x_.Get(DType::kF32, {t, h}, stream).status());
  OCTET_RETURN_IF_ERROR(
      model->normed_.Get(weights->dtype, {t, h}, stream).status());
  OCTET_RETURN_IF_ERROR(model->attention_.Reserve(t, stream));
  OCTET_RETURN_IF_ERROR(
      model->logits_.Get(DType::kF32, {n, config.vocab_size}, stream).status());
  return model;
}

absl::Status Transformer::Forward(int64_t step_id,
                                  absl::Span<const SequenceSlice> slices,
                                  absl::Span<const int64_t> rank_tokens,
                                  std::vector<std::vector<int32_t>>* routes) {
  if (routes != nullptr) routes->clear();
  num_tokens_ = 0;
  for (const SequenceSlice& slice : slices) {
    num_tokens_ += static_cast<int64_t>(slice.token_ids.size());
  }
  OCTET_CHECK(num_tokens_ <= limits_.max_step_tokens)
      << num_tokens_ << " tokens in a step";
  const int64_t h = config_.hidden_dim;
  OCTET_ASSIGN_OR_RETURN(const Tensor x,
                         x_.Get(DType::kF32, {num_tokens_, h}, *stream_));
  OCTET_ASSIGN_OR_RETURN(
      const Tensor normed,
      normed_.Get(weights_->dtype, {num_tokens_, h}, *stream_));
  if (num_tokens_ > 0) {
    OCTET_RETURN_IF_ERROR(Embed(slices, x));
    OCTET_RETURN_IF_ERROR(
        attention_.Prepare(slices, cache_->block_tokens(), *stream_));
  }
  ViewAdapters(*weights_, absl::MakeSpan(moe_weights_));
  for (int layer = 0; layer < config_.num_layers; ++layer) {
    if (num_tokens_ > 0) {
      OCTET_RETURN_IF_ERROR(RunAttention(layer, x, normed));
    }
    const StepContext step{step_id, layer, stream_.get()};
    OCTET_RETURN_IF_ERROR(moe_.Forward(moe_weights_[layer], normed, rank_tokens,
                                       x, step, &seconds_.moe));
    if (routes == nullptr) continue;
    routes->emplace_back(moe_.choices().begin(), moe_.choices().end());
  }
  return absl::OkStatus();
}

absl::Status Transformer::Embed(absl::Span<const SequenceSlice> slices,
                                Tensor x) {
  host_ids_.clear();
  for (const SequenceSlice& slice : slices) {
    host_ids_.insert(host_ids_.end(), slice.token_ids.begin(),
                     slice.token_ids.end());
  }
  OCTET_ASSIGN_OR_RETURN(const Tensor ids,
                         ids_.Get(DType::kI32, {num_tokens_}, *stream_));
  OCTET_RETURN_IF_ERROR(backend_->CopyToDevice(ids.data(), host_ids_.data(),
                                               ids.num_bytes(), *stream_));
  return ops::Embedding(*backend_, weights_->embedding.view, ids, x, *stream_);
}

// x += attention(norm(x)), and the norm that the experts read.
absl::Status Transformer::RunAttention(int layer, Tensor x, Tensor normed) {
  const absl::Time start = absl::Now();
  const LayerWeights& weights = weights_->layers[layer];
  OCTET_RETURN_IF_ERROR(ops::RmsNorm(*backend_, x, weights.input_norm.view,
                                     config_.rms_norm_eps, normed, *stream_));
  OCTET_RETURN_IF_ERROR(
      attention_.Forward(weights, cache_->layer(layer), normed, x, *stream_));
  OCTET_RETURN_IF_ERROR(ops::RmsNorm(*backend_, x,
                                     weights.post_attention_norm.view,
                                     config_.rms_norm_eps, normed, *stream_));
  seconds_.attention += SecondsSince(start);
  return absl::OkStatus();
}

absl::StatusOr<ConstTensor> Transformer::Logits(
    absl::Span<const int32_t> rows) {
  const absl::Time start = absl::Now();
  const int64_t n = static_cast<int64_t>(rows.size());
  const int64_t h = config_.hidden_dim;
  OCTET_CHECK(n >= 1 && n <= limits_.max_logit_rows) << n << " rows of logits";
  OCTET_ASSIGN_OR_RETURN(const Tensor x,
                         x_.Get(DType::kF32, {num_tokens_, h}, *stream_));
  OCTET_ASSIGN_OR_RETURN(const Tensor ids,
                         head_rows_.Get(DType::kI32, {n}, *stream_));
  OCTET_ASSIGN_OR_RETURN(const Tensor gathered,
                         head_x_.Get(DType::kF32, {n, h}, *stream_));
  OCTET_ASSIGN_OR_RETURN(const Tensor normed,
                         head_normed_.Get(weights_->dtype, {n, h}, *stream_));
  OCTET_ASSIGN_OR_RETURN(
      const Tensor logits,
      logits_.Get(DType::kF32, {n, config_.vocab_size}, *stream_));
  OCTET_RETURN_IF_ERROR(backend_->CopyToDevice(ids.data(), rows.data(),
                                               ids.num_bytes(), *stream_));
  OCTET_RETURN_IF_ERROR(ops::GatherRows(*backend_, x, ids, gathered, *stream_));
  OCTET_RETURN_IF_ERROR(ops::RmsNorm(*backend_, gathered,
                                     weights_->final_norm.view,
                                     config_.rms_norm_eps, normed, *stream_));
  OCTET_RETURN_IF_ERROR(ops::Gemm(*backend_, normed, *weights_->lm_head, false,
                                  logits, *stream_));
  OCTET_RETURN_IF_ERROR(backend_->Synchronize(*stream_));
  seconds_.head += SecondsSince(start);
  return ConstTensor(logits);
}

int64_t Transformer::workspace_bytes() const {
  return attention_.size_bytes() + moe_.size_bytes() +
         static_cast<int64_t>(ids_.size_bytes() + x_.size_bytes() +
                              normed_.size_bytes() + head_rows_.size_bytes() +
                              head_x_.size_bytes() + head_normed_.size_bytes() +
                              logits_.size_bytes());
}

}  // namespace octet
