#include "worker/moe/moe_layer.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "kernels/ops.h"

namespace octet {
namespace {

// Adds the time since the last call to a counter.
class PhaseClock {
 public:
  void AddTo(double& seconds) {
    const absl::Time now = absl::Now();
    seconds += absl::ToDoubleSeconds(now - last_);
    last_ = now;
  }

 private:
  absl::Time last_ = absl::Now();
};

}  // namespace

MoeLayer::MoeLayer(Backend* backend, Communicator* communicator,
                   const Placement* placement, const MoeShape& shape)
    : backend_(backend),
      placement_(placement),
      rank_(communicator->rank()),
      shape_(shape),
      dispatcher_(backend, communicator, placement),
      logits_(backend),
      topk_ids_(backend),
      topk_weights_(backend),
      expert_in_(backend),
      expert_mid_(backend),
      expert_out_(backend),
      expert_row_counts_(int64_t{shape.num_layers} * shape.num_experts) {}

absl::Status MoeLayer::Forward(const MoeWeights& weights, ConstTensor x,
                               absl::Span<const int64_t> rank_tokens,
                               Tensor residual, const StepContext& step,
                               MoeSeconds* seconds) {
  Stream& stream = *step.stream;
  const int64_t num_tokens = x.rows();
  PhaseClock clock;
  OCTET_ASSIGN_OR_RETURN(
      const Tensor topk_ids,
      topk_ids_.Get(DType::kI32, {num_tokens, shape_.top_k}, stream));
  OCTET_ASSIGN_OR_RETURN(
      const Tensor topk_weights,
      topk_weights_.Get(DType::kF32, {num_tokens, shape_.top_k}, stream));
  if (num_tokens > 0) {
    OCTET_ASSIGN_OR_RETURN(
        const Tensor logits,
        logits_.Get(DType::kF32, {num_tokens, shape_.num_experts}, stream));
    OCTET_RETURN_IF_ERROR(
        ops::Gemm(*backend_, x, *weights.gate, false, logits, stream));
    OCTET_RETURN_IF_ERROR(
        ops::Router(*backend_, logits, topk_ids, topk_weights, stream));
  }
  clock.AddTo(seconds->router);

  OCTET_ASSIGN_OR_RETURN(const DispatchHandle handle,
                         dispatcher_.Route(topk_ids, rank_tokens, step));
  OCTET_ASSIGN_OR_RETURN(const ConstTensor received,
                         dispatcher_.Dispatch(handle, x, step));
  CountRows(handle, step.layer);
  clock.AddTo(seconds->dispatch);

  OCTET_ASSIGN_OR_RETURN(const Tensor expert_out,
                         RunExperts(weights, handle, received, step));
  clock.AddTo(seconds->expert);

  OCTET_ASSIGN_OR_RETURN(const CombinedRows combined,
                         dispatcher_.Combine(handle, expert_out, step));
  if (num_tokens > 0) {
    OCTET_RETURN_IF_ERROR(ops::CombineRows(*backend_, combined.rows,
                                           combined.slot_rows, topk_weights,
                                           residual, stream));
  }
  clock.AddTo(seconds->combine);
  // The handle's host arrays may still be on their way to the device.
  return backend_->Synchronize(stream);
}

absl::StatusOr<Tensor> MoeLayer::RunExperts(const MoeWeights& weights,
                                            const DispatchHandle& handle,
                                            ConstTensor received,
                                            const StepContext& step) {
  Stream& stream = *step.stream;
  const int64_t num_rows = handle.expert_rows();
  OCTET_ASSIGN_OR_RETURN(
      const Tensor out,
      expert_out_.Get(shape_.dtype, {num_rows, shape_.hidden_dim}, stream));
  std::vector<int64_t> offsets(handle.expert_offsets.size());
  for (int64_t begin = 0; begin < num_rows; begin += shape_.max_expert_rows) {
    const int64_t count = std::min(shape_.max_expert_rows, num_rows - begin);
    for (size_t e = 0; e < offsets.size(); ++e) {
      offsets[e] =
          std::clamp<int64_t>(handle.expert_offsets[e] - begin, 0, count);
    }
    OCTET_ASSIGN_OR_RETURN(
        const Tensor in,
        expert_in_.Get(shape_.dtype, {count, shape_.hidden_dim}, stream));
    OCTET_ASSIGN_OR_RETURN(
        const Tensor mid,
        expert_mid_.Get(shape_.dtype, {count, shape_.ffn_dim}, stream));
    OCTET_RETURN_IF_ERROR(
        dispatcher_.GatherExpertRows(handle, received, begin, in, step));
    OCTET_RETURN_IF_ERROR(ops::GroupedGemmSwiGlu(*backend_, in, weights.w13,
                                                 offsets, mid, stream));
    OCTET_RETURN_IF_ERROR(ops::GroupedGemm(*backend_, mid, weights.w2, offsets,
                                           out.Rows(begin, count), stream));
  }
  return out;
}

void MoeLayer::CountRows(const DispatchHandle& handle, int layer) {
  const absl::Span<const int> local = placement_->LocalExperts(rank_);
  for (size_t e = 0; e < local.size(); ++e) {
    expert_row_counts_[int64_t{layer} * shape_.num_experts + local[e]] +=
        handle.expert_offsets[e + 1] - handle.expert_offsets[e];
  }
}

int64_t MoeLayer::size_bytes() const {
  return dispatcher_.size_bytes() +
         static_cast<int64_t>(
             logits_.size_bytes() + topk_ids_.size_bytes() +
             topk_weights_.size_bytes() + expert_in_.size_bytes() +
             expert_mid_.size_bytes() + expert_out_.size_bytes());
}

}  // namespace octet
