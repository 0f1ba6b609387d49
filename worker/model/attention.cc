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

absl::StatusOr<Attention::Buffers> Attention::GetBuffers(int64_t num_tokens,
                                                         Stream& stream) {
  const int64_t q_dim = config_.q_dim();
  Buffers buffers;
  OCTET_ASSIGN_OR_RETURN(
      buffers.qkv,
      qkv_.Get(DType::kF32, {num_tokens, q_dim + 2 * config_.kv_dim()},
               stream));
  OCTET_ASSIGN_OR_RETURN(buffers.q,
                         q_.Get(DType::kF32, {num_tokens, q_dim}, stream));
  OCTET_ASSIGN_OR_RETURN(buffers.out,
                         out_.Get(dtype_, {num_tokens, q_dim}, stream));
  return buffers;
}

absl::Status Attention::Reserve(int64_t max_tokens, Stream& stream) {
  return GetBuffers(max_tokens, stream).status();
}

absl::Status Attention::Forward(const LayerWeights& weights,
                                const KvCacheView& cache, ConstTensor x,
                                Tensor residual, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(const Buffers buffers, GetBuffers(x.rows(), stream));
  RopeParams rope;
  rope.theta = config_.rope_theta;
  rope.num_heads = config_.num_heads;
  rope.num_kv_heads = config_.num_kv_heads;
  rope.head_dim = config_.head_dim;
  OCTET_RETURN_IF_ERROR(
      ops::Gemm(*backend_, x, *weights.qkv, false, buffers.qkv, stream));
  OCTET_RETURN_IF_ERROR(ops::RopeAndCache(*backend_, buffers.qkv, positions_,
                                          slots_, rope, cache, buffers.q,
                                          stream));
  OCTET_RETURN_IF_ERROR(ops::PagedAttention(*backend_, buffers.q, cache,
                                            sequences_, config_.sliding_window,
                                            buffers.out, stream));
  return ops::Gemm(*backend_, buffers.out, *weights.o, true, residual, stream);
}

int64_t Attention::size_bytes() const {
  return static_cast<int64_t>(positions_memory_.size_bytes() +
                              slots_memory_.size_bytes() + qkv_.size_bytes() +
                              q_.size_bytes() + out_.size_bytes());
}

}  // namespace octet
