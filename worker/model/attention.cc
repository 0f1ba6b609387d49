#include "worker/model/attention.h"

#include "base/status_macros.h"
#include "kernels/ops.h"

namespace octet {

Attention::Attention(Backend* backend, const ModelConfig& config, DType dtype)
    : backend_(backend),
      config_(config),
      dtype_(dtype),
      positions_memory_(backend),
      slots_memory_(backend),
      linear_(backend),
      qkv_(backend),
      q_(backend),
      out_(backend) {}

absl::Status Attention::Prepare(absl::Span<const SequenceSlice> slices,
                                int block_tokens, Stream& stream) {
  host_positions_.clear();
  host_slots_.clear();
  sequences_.clear();
  for (const SequenceSlice& slice : slices) {
    AttentionSequence sequence;
    sequence.row_begin = static_cast<int64_t>(host_positions_.size());
    sequence.num_rows = static_cast<int64_t>(slice.token_ids.size());
    sequence.first_position = slice.start_position;
    sequence.block_table = slice.block_ids;
    sequences_.push_back(sequence);
    for (int64_t i = 0; i < sequence.num_rows; ++i) {
      const int64_t position = slice.start_position + i;
      host_positions_.push_back(static_cast<int32_t>(position));
      host_slots_.push_back(int64_t{slice.block_ids[position / block_tokens]} *
                                block_tokens +
                            position % block_tokens);
    }
  }
  const int64_t num_tokens = static_cast<int64_t>(host_positions_.size());
  OCTET_ASSIGN_OR_RETURN(
      positions_, positions_memory_.Get(DType::kI32, {num_tokens}, stream));
  OCTET_ASSIGN_OR_RETURN(slots_,
                         slots_memory_.Get(DType::kI64, {num_tokens}, stream));
  if (num_tokens == 0) return absl::OkStatus();
  OCTET_RETURN_IF_ERROR(backend_->CopyToDevice(positions_.data(),
                                               host_positions_.data(),
                                               positions_.num_bytes(), stream));
  return backend_->CopyToDevice(slots_.data(), host_slots_.data(),
                                slots_.num_bytes(), stream);
}

absl::StatusOr<Tensor> Attention::Qkv(int64_t num_tokens, Stream& stream) {
  return qkv_.Get(DType::kF32,
                  {num_tokens, config_.q_dim() + 2 * config_.kv_dim()}, stream);
}

absl::StatusOr<Attention::Kept> Attention::OwnMemory(int64_t num_tokens,
                                                     Stream& stream) {
  const int64_t q_dim = config_.q_dim();
  Kept kept;
  OCTET_ASSIGN_OR_RETURN(kept.q,
                         q_.Get(DType::kF32, {num_tokens, q_dim}, stream));
  OCTET_ASSIGN_OR_RETURN(kept.out,
                         out_.Get(dtype_, {num_tokens, q_dim}, stream));
  return kept;
}

absl::Status Attention::Reserve(int64_t max_tokens, Stream& stream) {
  OCTET_RETURN_IF_ERROR(Qkv(max_tokens, stream).status());
  return OwnMemory(max_tokens, stream).status();
}

absl::Status Attention::Forward(const LayerWeights& weights,
                                const KvCacheView& cache, ConstTensor x,
                                Tensor residual, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(const Kept kept, OwnMemory(x.rows(), stream));
  return ForwardTraining(-1, weights, cache, x, {}, kept, residual, stream);
}

absl::Status Attention::ForwardTraining(int layer, const LayerWeights& weights,
                                        const KvCacheView& cache, ConstTensor x,
                                        const DropoutRows& dropout,
                                        const Kept& kept, Tensor residual,
                                        Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(const Tensor qkv, Qkv(x.rows(), stream));
  OCTET_RETURN_IF_ERROR(linear_.ForwardTraining(
      {weights.qkv.get(), weights.qkv_lora.get()}, {WeightKind::kQkv, layer}, x,
      dropout, false, qkv, stream));
  OCTET_RETURN_IF_ERROR(ops::RopeAndCache(*backend_, qkv, positions_, slots_,
                                          rope(), cache, kept.q, stream));
  OCTET_RETURN_IF_ERROR(ops::PagedAttention(*backend_, kept.q, cache,
                                            sequences_, config_.sliding_window,
                                            kept.out, stream));
  return linear_.ForwardTraining({weights.o.get(), weights.o_lora.get()},
                                 {WeightKind::kO, layer}, kept.out, dropout,
                                 true, residual, stream);
}

RopeParams Attention::rope() const {
  RopeParams rope;
  rope.theta = config_.rope_theta;
  rope.num_heads = config_.num_heads;
  rope.num_kv_heads = config_.num_kv_heads;
  rope.head_dim = config_.head_dim;
  return rope;
}

int64_t Attention::size_bytes() const {
  return linear_.size_bytes() +
         static_cast<int64_t>(positions_memory_.size_bytes() +
                              slots_memory_.size_bytes() + qkv_.size_bytes() +
                              q_.size_bytes() + out_.size_bytes());
}

}  // namespace octet
