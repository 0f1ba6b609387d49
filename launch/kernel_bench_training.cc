// The operations of a training step (kernels/training_backend.h).
#include <algorithm>
#include <initializer_list>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/ops.h"
#include "kernels/training_ops.h"
#include "launch/kernel_bench.h"

namespace octet {
namespace {

// The first elements as another shape.
Tensor Reshaped(const OwnedTensor& tensor,
                std::initializer_list<int64_t> dims) {
  return Tensor(tensor.view.data(), tensor.view.dtype(), dims);
}

RopeParams RopeOf(const ModelConfig& config) {
  return {.theta = config.rope_theta,
          .num_heads = config.num_heads,
          .num_kv_heads = config.num_kv_heads,
          .head_dim = config.head_dim};
}

}  // namespace

absl::Status KernelBench::PrepareTraining(const KernelWorkload& workload) {
  if (backend_->training() == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        "octet bench kernels: ", backend_->Description(), " cannot train"));
  }
  const int64_t t = workload.tokens, h = config_.hidden_dim;
  const int64_t q = config_.q_dim(), kv = config_.kv_dim();
  const int64_t e = config_.num_experts, k = config_.top_k;
  const int64_t v = config_.vocab_size, f = config_.ffn_dim;
  TrainingStep& step = training_;
  OCTET_ASSIGN_OR_RETURN(step.dq, Random(DType::kF32, t, q));
  OCTET_ASSIGN_OR_RETURN(step.dk, Random(DType::kF32, t, kv));
  OCTET_ASSIGN_OR_RETURN(step.dv, Random(DType::kF32, t, kv));
  OCTET_ASSIGN_OR_RETURN(step.dqkv, Random(dtype_, t, q + 2 * kv));
  OCTET_ASSIGN_OR_RETURN(step.gate_up, Random(DType::kF32, t * k, 2 * f));
  OCTET_ASSIGN_OR_RETURN(step.probabilities, Random(DType::kF32, t, e));
  OCTET_ASSIGN_OR_RETURN(step.coef, Random(DType::kF32, 1, e));
  OCTET_ASSIGN_OR_RETURN(step.dots, Random(DType::kF32, t, k));
  const std::vector<int32_t> targets(t, 0);
  OCTET_ASSIGN_OR_RETURN(step.targets,
                         Indices(DType::kI32, targets.data(), t, 1));
  OCTET_ASSIGN_OR_RETURN(step.losses, New(DType::kF32, t * k, 1));
  OCTET_ASSIGN_OR_RETURN(step.scales, Random(DType::kF32, t * k, 1));
  OCTET_ASSIGN_OR_RETURN(step.dlogits, New(dtype_, t, v));
  OCTET_ASSIGN_OR_RETURN(step.gradient,
                         Random(DType::kF32, std::max({v, f, q + 2 * kv}), h));
  OCTET_ASSIGN_OR_RETURN(step.master, Random(DType::kF32, h, q));
  OCTET_ASSIGN_OR_RETURN(step.m, Random(DType::kF32, h, q));
  OCTET_ASSIGN_OR_RETURN(step.v, Random(DType::kF32, h, q));
  OCTET_RETURN_IF_ERROR(
      backend_->Zero(step.v.view.data(), step.v.view.num_bytes(), *stream_));
  // Ids of experts and weights for the router's gradient.
  return ops::Router(*backend_, step_.gate_logits.view, step_.topk_ids.view,
                     step_.topk_weights.view, *stream_);
}

absl::Status KernelBench::CallTraining(KernelOp op) {
  TrainingBackend& training = *backend_->training();
  Stream& s = *stream_;
  const int64_t t = step_.x.view.dim(0), h = config_.hidden_dim;
  const Tensor weight = Reshaped(training_.gradient, {h});
  const float eps = config_.rms_norm_eps;
  switch (op) {
    case KernelOp::kCrossEntropy:
      return train_ops::CrossEntropy(
          training, step_.logits.view, training_.targets.view,
          Reshaped(training_.scales, {t}), Reshaped(training_.losses, {t}),
          training_.dlogits.view, s);
    case KernelOp::kRmsNormBackward:
      return train_ops::RmsNormBackward(training, step_.x.view,
                                        weights_.layers[0].input_norm.view, eps,
                                        step_.x.view, step_.residual.view, s);
    case KernelOp::kRmsNormBackwardWeight:
      return train_ops::RmsNormBackwardWeight(
          training, step_.x.view, eps, step_.residual.view, false, weight, s);
    case KernelOp::kDropout:
      return train_ops::Dropout(training, step_.normed.view, step_.slots.view,
                                1, 0.1f, false, step_.gathered.view.Rows(0, t),
                                s);
    case KernelOp::kCast:
      return train_ops::Cast(training, step_.x.view, step_.normed.view, s);
    case KernelOp::kEmbeddingBackward:
      return train_ops::EmbeddingBackward(
          training, step_.x.view, step_.ids.view,
          Reshaped(training_.gradient, {config_.vocab_size, h}), s);
    case KernelOp::kQkvBackwardInput:
    case KernelOp::kQkvBackwardWeight:
    case KernelOp::kAttentionBackward:
    case KernelOp::kRopeBackward:
      return CallAttentionTraining(op);
    case KernelOp::kRouterBackward:
    case KernelOp::kRouterProbabilities:
    case KernelOp::kRouterLossBackward:
      return CallRouterTraining(op);
    case KernelOp::kSumOfSquares:
    case KernelOp::kAddScaled:
    case KernelOp::kAdamW:
    case KernelOp::kRepack:
      return CallUpdateTraining(op);
    default:
      return CallExpertsTraining(op);
  }
}

absl::Status KernelBench::CallAttentionTraining(KernelOp op) {
  TrainingBackend& training = *backend_->training();
  Stream& s = *stream_;
  const TrainingStep& step = training_;
  const int64_t h = config_.hidden_dim;
  switch (op) {
    case KernelOp::kQkvBackwardInput:
      return train_ops::GemmBackwardInput(training, step.dqkv.view,
                                          *weights_.layers[0].qkv, false,
                                          step_.x.view, s);
    case KernelOp::kQkvBackwardWeight:
      return train_ops::GemmBackwardWeight(
          training, step_.normed.view, step.dqkv.view, 1.0f, false,
          Reshaped(step.gradient, {step.dqkv.view.dim(1), h}), s);
    case KernelOp::kAttentionBackward:
      return train_ops::AttentionBackward(
          training, step_.q.view, cache_, host_.sequences,
          config_.sliding_window, step_.attention.view, step_.attention.view,
          step.dq.view, step.dk.view, step.dv.view, s);
    default:
      return train_ops::RopeBackward(training, step.dq.view, step.dk.view,
                                     step.dv.view, step_.positions.view,
                                     RopeOf(config_), step.dqkv.view, s);
  }
}

absl::Status KernelBench::CallExpertsTraining(KernelOp op) {
  TrainingBackend& training = *backend_->training();
  Stream& s = *stream_;
  const int64_t rows = step_.gathered.view.dim(0);
  switch (op) {
    case KernelOp::kSlotDots:
      return train_ops::SlotDots(training, step_.x.view, step_.expert_rows.view,
                                 step_.slot_rows.view, training_.dots.view, s);
    case KernelOp::kScaleRows:
      return train_ops::ScaleRows(training, step_.gathered.view,
                                  Reshaped(training_.scales, {rows}),
                                  step_.expert_rows.view, s);
    case KernelOp::kSwiGlu:
      return train_ops::SwiGlu(training, training_.gate_up.view,
                               step_.hidden.view, s);
    case KernelOp::kSwiGluBackward:
      return train_ops::SwiGluBackward(training, training_.gate_up.view,
                                       step_.hidden.view,
                                       training_.gate_up.view, s);
    case KernelOp::kGroupedGemmBackwardInput:
      return train_ops::GroupedGemmBackwardInput(training, step_.gathered.view,
                                                 w2_, row_offsets_, false,
                                                 step_.hidden.view, s);
    default: {  // the first expert's W2
      const int64_t count = row_offsets_[1];
      return train_ops::GemmBackwardWeight(
          training, step_.hidden.view.Rows(0, count),
          step_.gathered.view.Rows(0, count), 1.0f, false,
          Reshaped(training_.gradient, {config_.hidden_dim, config_.ffn_dim}),
          s);
    }
  }
}

absl::Status KernelBench::CallRouterTraining(KernelOp op) {
  TrainingBackend& training = *backend_->training();
  Stream& s = *stream_;
  const TrainingStep& step = training_;
  const int64_t t = step_.x.view.dim(0);
  switch (op) {
    case KernelOp::kRouterBackward:
      return train_ops::RouterBackward(training, step_.topk_ids.view,
                                       step_.topk_weights.view, step.dots.view,
                                       step.probabilities.view, s);
    case KernelOp::kRouterProbabilities:
      return train_ops::RouterProbabilities(training, step_.gate_logits.view,
                                            step.probabilities.view,
                                            Reshaped(step.losses, {t}), s);
    default:
      return train_ops::RouterLossBackward(
          training, step_.gate_logits.view,
          Reshaped(step.coef, {config_.num_experts}), 1e-3f,
          step.probabilities.view, s);
  }
}

absl::Status KernelBench::CallUpdateTraining(KernelOp op) {
  TrainingBackend& training = *backend_->training();
  Stream& s = *stream_;
  const int64_t n = training_.master.view.num_elements();
  const Tensor gradient = Reshaped(training_.gradient, {n});
  switch (op) {
    case KernelOp::kSumOfSquares:
      return train_ops::SumOfSquares(training, gradient, &squares_, s);
    case KernelOp::kAddScaled:
      return train_ops::AddScaled(training, training_.master.view, 0.5f,
                                  training_.m.view, s);
    case KernelOp::kAdamW: {
      AdamWParams params;
      params.learning_rate = 1e-3f;
      return train_ops::AdamW(
          training, params, gradient, Reshaped(training_.master, {n}),
          Reshaped(training_.m, {n}), Reshaped(training_.v, {n}), s);
    }
    default:
      return train_ops::Repack(training, *weights_.layers[0].o, 0,
                               training_.master.view, s);
  }
}

}  // namespace octet
