#include "worker/model/training_head.h"

#include <algorithm>

#include "base/status_macros.h"
#include "kernels/ops.h"
#include "kernels/training_ops.h"

namespace octet {
TrainingHead::TrainingHead(Backend* backend, const ModelConfig& config,
                           const ModelWeights* weights, int64_t max_rows)
    : backend_(backend),
      config_(config),
      weights_(weights),
      max_rows_(max_rows),
      label_rows_memory_(backend),
      label_ids_memory_(backend),
      scales_memory_(backend),
      losses_memory_(backend),
      label_dx_memory_(backend),
      sources_memory_(backend),
      x_(backend),
      normed_(backend),
      logits_(backend),
      dlogits_(backend),
      dnormed_(backend) {}

absl::Status TrainingHead::Forward(const TrainingLayout& layout, ConstTensor x,
                                   absl::Span<float> losses, Stream& stream) {
  OCTET_RETURN_IF_ERROR(Upload(layout, {}, stream));
  for (const Chunk& chunk : Chunks(layout)) {
    OCTET_ASSIGN_OR_RETURN(const Rows rows, Logits(chunk, x, stream));
    OCTET_RETURN_IF_ERROR(train_ops::CrossEntropy(
        *backend_->training(), rows.logits, rows.targets, rows.scales,
        rows.losses, Tensor(), stream));
  }
  return ReadLosses(losses, stream);
}

absl::Status TrainingHead::ForwardBackward(
    const TrainingLayout& layout, ConstTensor x, absl::Span<const float> scales,
    absl::Span<float> losses, GradientSink& sink, Tensor dx, Stream& stream) {
  const int64_t num_labels = static_cast<int64_t>(layout.label_rows.size());
  if (layout.num_tokens() == 0) return absl::OkStatus();
  OCTET_RETURN_IF_ERROR(Upload(layout, scales, stream));
  OCTET_ASSIGN_OR_RETURN(
      label_dx_,
      label_dx_memory_.Get(DType::kF32, {num_labels + 1, config_.hidden_dim},
                           stream));
  OCTET_RETURN_IF_ERROR(
      backend_->Zero(label_dx_.data(), label_dx_.num_bytes(), stream));
  for (const Chunk& chunk : Chunks(layout)) {
    OCTET_ASSIGN_OR_RETURN(const Rows rows, Logits(chunk, x, stream));
    OCTET_RETURN_IF_ERROR(Backward(chunk, rows, sink, stream));
  }
  OCTET_RETURN_IF_ERROR(Scatter(layout, dx, stream));
  return ReadLosses(losses, stream);
}

std::vector<TrainingHead::Chunk> TrainingHead::Chunks(
    const TrainingLayout& layout) const {
  std::vector<Chunk> chunks;
  for (const SlotRows& slot : layout.label_slots) {
    const int64_t num_rows = slot.end - slot.begin;
    const bool fits = !chunks.empty() &&
                      slot.end - chunks.back().begin <= max_rows_ &&
                      num_rows <= max_rows_;
    for (int64_t at = slot.begin; at < slot.end;) {
      if (!fits) chunks.push_back({at, at, {}});
      Chunk& chunk = chunks.back();
      const int64_t end = std::min(slot.end, at + max_rows_);
      chunk.slots.push_back({slot.slot, at - chunk.begin, end - chunk.begin});
      at = chunk.end = end;
    }
  }
  return chunks;
}

absl::Status TrainingHead::Upload(const TrainingLayout& layout,
                                  absl::Span<const float> scales,
                                  Stream& stream) {
  const int64_t n = static_cast<int64_t>(layout.label_rows.size());
  OCTET_ASSIGN_OR_RETURN(label_rows_,
                         label_rows_memory_.Get(DType::kI32, {n}, stream));
  OCTET_ASSIGN_OR_RETURN(label_ids_,
                         label_ids_memory_.Get(DType::kI32, {n}, stream));
  OCTET_ASSIGN_OR_RETURN(scales_, scales_memory_.Get(DType::kF32, {n}, stream));
  OCTET_ASSIGN_OR_RETURN(losses_, losses_memory_.Get(DType::kF32, {n}, stream));
  if (n == 0) return absl::OkStatus();
  host_scales_.assign(scales.begin(), scales.end());
  host_scales_.resize(n);
  OCTET_RETURN_IF_ERROR(
      backend_->CopyToDevice(label_rows_.data(), layout.label_rows.data(),
                             label_rows_.num_bytes(), stream));
  OCTET_RETURN_IF_ERROR(backend_->CopyToDevice(label_ids_.data(),
                                               layout.label_ids.data(),
                                               label_ids_.num_bytes(), stream));
  return backend_->CopyToDevice(scales_.data(), host_scales_.data(),
                                scales_.num_bytes(), stream);
}

absl::StatusOr<TrainingHead::Rows> TrainingHead::Logits(const Chunk& chunk,
                                                        ConstTensor x,
                                                        Stream& stream) {
  const int64_t n = chunk.end - chunk.begin, h = config_.hidden_dim;
  Rows rows;
  rows.targets = label_ids_.Rows(chunk.begin, n);
  rows.scales = scales_.Rows(chunk.begin, n);
  rows.losses = losses_.Rows(chunk.begin, n);
  OCTET_ASSIGN_OR_RETURN(rows.x, x_.Get(DType::kF32, {n, h}, stream));
  OCTET_ASSIGN_OR_RETURN(rows.normed,
                         normed_.Get(weights_->dtype, {n, h}, stream));
  OCTET_ASSIGN_OR_RETURN(
      rows.logits, logits_.Get(DType::kF32, {n, config_.vocab_size}, stream));
  OCTET_RETURN_IF_ERROR(ops::GatherRows(
      *backend_, x, label_rows_.Rows(chunk.begin, n), rows.x, stream));
  OCTET_RETURN_IF_ERROR(
      ops::RmsNorm(*backend_, rows.x, weights_->final_norm.view,
                   config_.rms_norm_eps, rows.normed, stream));
  OCTET_RETURN_IF_ERROR(ops::Gemm(*backend_, rows.normed, *weights_->lm_head,
                                  false, rows.logits, stream));
  return rows;
}

absl::Status TrainingHead::Backward(const Chunk& chunk, const Rows& rows,
                                    GradientSink& sink, Stream& stream) {
  TrainingBackend& training = *backend_->training();
  const int64_t n = chunk.end - chunk.begin, h = config_.hidden_dim;
  const WeightId head = {config_.tie_word_embeddings ? WeightKind::kEmbedding
                                                     : WeightKind::kLmHead};
  const WeightId norm = {WeightKind::kFinalNorm};
  Tensor dlogits = rows.logits;
  if (weights_->dtype != DType::kF32) {
    OCTET_ASSIGN_OR_RETURN(
        dlogits,
        dlogits_.Get(weights_->dtype, {n, config_.vocab_size}, stream));
  }
  OCTET_ASSIGN_OR_RETURN(const Tensor dnormed,
                         dnormed_.Get(DType::kF32, {n, h}, stream));
  OCTET_RETURN_IF_ERROR(train_ops::CrossEntropy(training, rows.logits,
                                                rows.targets, rows.scales,
                                                rows.losses, dlogits, stream));
  if (sink.Wants(head)) {
    OCTET_RETURN_IF_ERROR(
        sink.AddProduct(head, rows.normed, dlogits, 1, chunk.slots, stream));
  }
  OCTET_RETURN_IF_ERROR(train_ops::GemmBackwardInput(
      training, dlogits, *weights_->lm_head, false, dnormed, stream));
  if (sink.Wants(norm)) {
    OCTET_RETURN_IF_ERROR(sink.AddNorm(norm, rows.x, config_.rms_norm_eps,
                                       dnormed, chunk.slots, stream));
  }
  return train_ops::RmsNormBackward(training, rows.x, weights_->final_norm.view,
                                    config_.rms_norm_eps, dnormed,
                                    label_dx_.Rows(chunk.begin, n), stream);
}

// Rows without a label take the row of zeros behind the labels'.
absl::Status TrainingHead::Scatter(const TrainingLayout& layout, Tensor dx,
                                   Stream& stream) {
  const int64_t n = static_cast<int64_t>(layout.label_rows.size());
  host_sources_.assign(layout.num_tokens(), static_cast<int32_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    host_sources_[layout.label_rows[i]] = static_cast<int32_t>(i);
  }
  OCTET_ASSIGN_OR_RETURN(
      const Tensor sources,
      sources_memory_.Get(DType::kI32, {layout.num_tokens()}, stream));
  OCTET_RETURN_IF_ERROR(backend_->CopyToDevice(
      sources.data(), host_sources_.data(), sources.num_bytes(), stream));
  return ops::GatherRows(*backend_, label_dx_, sources, dx, stream);
}

absl::Status TrainingHead::ReadLosses(absl::Span<float> losses,
                                      Stream& stream) {
  if (!losses.empty()) {
    OCTET_RETURN_IF_ERROR(backend_->CopyToHost(losses.data(), losses_.data(),
                                               losses_.num_bytes(), stream));
  }
  return backend_->Synchronize(stream);
}

int64_t TrainingHead::size_bytes() const {
  return static_cast<int64_t>(
      label_rows_memory_.size_bytes() + label_ids_memory_.size_bytes() +
      scales_memory_.size_bytes() + losses_memory_.size_bytes() +
      label_dx_memory_.size_bytes() + sources_memory_.size_bytes() +
      x_.size_bytes() + normed_.size_bytes() + logits_.size_bytes() +
      dlogits_.size_bytes() + dnormed_.size_bytes());
}

int64_t TrainingHead::Bytes(const ModelConfig& config, DType dtype,
                            int64_t max_rows, int64_t num_tokens) {
  const int64_t n = std::min(max_rows, num_tokens);
  const int64_t width = static_cast<int64_t>(SizeOf(dtype));
  const int64_t narrow = dtype == DType::kF32 ? 0 : width;
  return num_tokens * 20 + (num_tokens + 1) * config.hidden_dim * 4 +
         n * config.hidden_dim * (8 + width) +
         n * config.vocab_size * (4 + narrow);
}

}  // namespace octet
