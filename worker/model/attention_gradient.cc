#include "worker/model/attention_gradient.h"

#include "base/status_macros.h"
#include "kernels/training_ops.h"

namespace octet {

AttentionGradient::AttentionGradient(Backend* backend,
                                     const ModelConfig& config, DType dtype)
    : backend_(backend),
      config_(config),
      dtype_(dtype),
      linear_(backend),
      dy_(backend),
      dout_(backend),
      dq_(backend),
      dk_(backend),
      dv_(backend),
      dqkv_(backend) {}

absl::Status AttentionGradient::Backward(
    int layer, const LayerWeights& weights, const Attention& attention,
    const KvCacheView& cache, ConstTensor x, const Attention::Kept& kept,
    const DropoutRows& dropout, absl::Span<const SlotRows> slots,
    ConstTensor dy, GradientSink& sink, Tensor dx, Stream& stream) {
  TrainingBackend& training = *backend_->training();
  const int64_t t = x.rows();
  const int64_t q_dim = config_.q_dim(), kv_dim = config_.kv_dim();
  ConstTensor dy_rounded = dy;
  if (dtype_ != DType::kF32) {
    OCTET_ASSIGN_OR_RETURN(const Tensor rounded,
                           dy_.Get(dtype_, {t, config_.hidden_dim}, stream));
    OCTET_RETURN_IF_ERROR(train_ops::Cast(training, dy, rounded, stream));
    dy_rounded = rounded;
  }
  OCTET_ASSIGN_OR_RETURN(const Tensor dout,
                         dout_.Get(DType::kF32, {t, q_dim}, stream));
  OCTET_ASSIGN_OR_RETURN(const Tensor dq,
                         dq_.Get(DType::kF32, {t, q_dim}, stream));
  OCTET_ASSIGN_OR_RETURN(const Tensor dk,
                         dk_.Get(DType::kF32, {t, kv_dim}, stream));
  OCTET_ASSIGN_OR_RETURN(const Tensor dv,
                         dv_.Get(DType::kF32, {t, kv_dim}, stream));
  OCTET_ASSIGN_OR_RETURN(const Tensor dqkv,
                         dqkv_.Get(dtype_, {t, q_dim + 2 * kv_dim}, stream));
  OCTET_RETURN_IF_ERROR(linear_.Backward(
      {weights.o.get(), weights.o_lora.get()}, {WeightKind::kO, layer},
      kept.out, dy_rounded, dropout, slots, sink, false, dout, stream));
  OCTET_RETURN_IF_ERROR(train_ops::AttentionBackward(
      training, kept.q, cache, attention.sequences(), config_.sliding_window,
      kept.out, dout, dq, dk, dv, stream));
  OCTET_RETURN_IF_ERROR(
      train_ops::RopeBackward(training, dq, dk, dv, attention.positions(),
                              attention.rope(), dqkv, stream));
  return linear_.Backward({weights.qkv.get(), weights.qkv_lora.get()},
                          {WeightKind::kQkv, layer}, x, dqkv, dropout, slots,
                          sink, false, dx, stream);
}

int64_t AttentionGradient::size_bytes() const {
  return linear_.size_bytes() +
         static_cast<int64_t>(dy_.size_bytes() + dout_.size_bytes() +
                              dq_.size_bytes() + dk_.size_bytes() +
                              dv_.size_bytes() + dqkv_.size_bytes());
}

int64_t AttentionGradient::Bytes(const ModelConfig& config, DType dtype,
                                 int64_t num_tokens) {
  const int64_t width = static_cast<int64_t>(SizeOf(dtype));
  const int64_t q = config.q_dim(), kv = config.kv_dim();
  return num_tokens * (8 * (q + kv) + width * (q + 2 * kv) +
                       (dtype == DType::kF32 ? 0 : width * config.hidden_dim));
}

}  // namespace octet
