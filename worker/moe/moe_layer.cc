#include "worker/moe/moe_layer.h"

#include <algorithm>

#include "base/status_macros.h"
#include "kernels/ops.h"
#include "worker/nn/phase_clock.h"

namespace octet {

struct MoeLayer::Pass {
  const MoeWeights& weights;
  ConstTensor x;     // [T, H]
  Tensor residual;   // [T, H]
  StepContext step;  // compute
  StepContext transfers;
  MoeSeconds* seconds;
  PhaseClock clock = {};
  Tensor topk_ids = {};                       // [T, K]
  Tensor topk_weights = {};                   // [T, K]
  std::vector<DispatchHandle> handles = {};   // by chunk
  std::vector<int64_t> begins = {};           // first token of each chunk
  std::vector<ConstTensor> expert_outs = {};  // of each chunk that has been run

  bool two_streams() const { return step.stream != transfers.stream; }
};

MoeLayer::MoeLayer(Backend* backend, Communicator* communicator,
                   const Placement* placement, const MoeShape& shape)
    : backend_(backend),
      placement_(placement),
      rank_(communicator->rank()),
      shape_(shape),
      gate_(backend),
      experts_(backend, shape),
      logits_(backend),
      topk_ids_(backend),
      topk_weights_(backend),
      expert_row_counts_(int64_t{shape.num_layers} * shape.num_experts) {
  const int num_lanes =
      shape.max_chunks > 1 && communicator->size() > 1 ? 2 : 1;
  lanes_.reserve(num_lanes);
  for (int lane = 0; lane < num_lanes; ++lane) {
    lanes_.emplace_back(backend, communicator, placement);
  }
}

absl::Status MoeLayer::Forward(const MoeWeights& weights, ConstTensor x,
                               absl::Span<const int64_t> rank_tokens,
                               Tensor residual, const StepContext& step,
                               MoeSeconds* seconds) {
  const int num_chunks = NumChunks(rank_tokens);
  Pass pass{.weights = weights,
            .x = x,
            .residual = residual,
            .step = step,
            .transfers = step,
            .seconds = seconds};
  if (num_chunks > 1) {
    OCTET_RETURN_IF_ERROR(SetUpStreams());
    pass.transfers.stream = transfers_.get();
  }
  OCTET_RETURN_IF_ERROR(Route(x, pass));
  OCTET_ASSIGN_OR_RETURN(
      pass.handles, lanes_[0].dispatcher.RouteChunks(pass.topk_ids, rank_tokens,
                                                     num_chunks, step));
  // The host has waited for step.stream: the rows are there, and the last layer
  // is done with the lanes.
  for (int chunk = 0; chunk < num_chunks; ++chunk) {
    pass.begins.push_back(ChunkRange(x.rows(), chunk, num_chunks).begin);
    OCTET_RETURN_IF_ERROR(RunChunk(pass, chunk));
    if (chunk > 0) OCTET_RETURN_IF_ERROR(CombineChunk(pass, chunk - 1));
  }
  OCTET_RETURN_IF_ERROR(CombineChunk(pass, num_chunks - 1));
  // The handles' host arrays may still be on their way to the device.
  return backend_->Synchronize(*step.stream);
}

absl::Status MoeLayer::Route(ConstTensor x, Pass& pass) {
  Stream& stream = *pass.step.stream;
  const int64_t num_tokens = x.rows();
  OCTET_ASSIGN_OR_RETURN(
      pass.topk_ids,
      topk_ids_.Get(DType::kI32, {num_tokens, shape_.top_k}, stream));
  OCTET_ASSIGN_OR_RETURN(
      pass.topk_weights,
      topk_weights_.Get(DType::kF32, {num_tokens, shape_.top_k}, stream));
  if (num_tokens > 0) {
    OCTET_ASSIGN_OR_RETURN(
        const Tensor logits,
        logits_.Get(DType::kF32, {num_tokens, shape_.num_experts}, stream));
    OCTET_RETURN_IF_ERROR(
        gate_.Forward(pass.weights.gate, x, false, logits, stream));
    OCTET_RETURN_IF_ERROR(ops::Router(*backend_, logits, pass.topk_ids,
                                      pass.topk_weights, stream));
  }
  pass.clock.AddTo(pass.seconds->router);
  return absl::OkStatus();
}

absl::Status MoeLayer::RunChunk(Pass& pass, int chunk) {
  Lane& lane = lanes_[chunk % lanes_.size()];
  const DispatchHandle& handle = pass.handles[chunk];
  OCTET_ASSIGN_OR_RETURN(
      const ConstTensor received,
      lane.dispatcher.Dispatch(
          handle, pass.x.Rows(pass.begins[chunk], handle.num_tokens),
          pass.transfers));
  CountRows(handle, pass.step.layer);
  OCTET_RETURN_IF_ERROR(Mark(pass, lane.moved, pass.transfers));
  OCTET_RETURN_IF_ERROR(Await(pass, lane.moved, pass.step));
  pass.clock.AddTo(pass.seconds->dispatch);

  OCTET_ASSIGN_OR_RETURN(
      const Tensor out,
      lane.expert_out.Get(shape_.dtype,
                          {handle.expert_rows(), shape_.hidden_dim},
                          *pass.step.stream));
  OCTET_RETURN_IF_ERROR(experts_.Run(pass.weights, handle, lane.dispatcher,
                                     received, out, pass.step));
  OCTET_RETURN_IF_ERROR(Mark(pass, lane.computed, pass.step));
  pass.expert_outs.push_back(out);
  pass.clock.AddTo(pass.seconds->expert);
  return absl::OkStatus();
}

absl::Status MoeLayer::CombineChunk(Pass& pass, int chunk) {
  Lane& lane = lanes_[chunk % lanes_.size()];
  const DispatchHandle& handle = pass.handles[chunk];
  OCTET_RETURN_IF_ERROR(Await(pass, lane.computed, pass.transfers));
  OCTET_ASSIGN_OR_RETURN(
      const CombinedRows combined,
      lane.dispatcher.Combine(handle, pass.expert_outs[chunk], pass.transfers));
  OCTET_RETURN_IF_ERROR(Mark(pass, lane.moved, pass.transfers));
  OCTET_RETURN_IF_ERROR(Await(pass, lane.moved, pass.step));
  if (handle.num_tokens > 0) {
    const int64_t begin = pass.begins[chunk];
    OCTET_RETURN_IF_ERROR(ops::CombineRows(
        *backend_, combined.rows, combined.slot_rows,
        ConstTensor(pass.topk_weights).Rows(begin, handle.num_tokens),
        pass.residual.Rows(begin, handle.num_tokens), *pass.step.stream));
  }
  pass.clock.AddTo(pass.seconds->combine);
  return absl::OkStatus();
}

int MoeLayer::NumChunks(absl::Span<const int64_t> rank_tokens) const {
  if (lanes_.size() == 1) return 1;
  const int64_t fullest =
      *std::max_element(rank_tokens.begin(), rank_tokens.end());
  return static_cast<int>(std::clamp<int64_t>(fullest / shape_.min_chunk_tokens,
                                              1, shape_.max_chunks));
}

absl::Status MoeLayer::SetUpStreams() {
  if (transfers_ != nullptr) return absl::OkStatus();
  for (Lane& lane : lanes_) {
    OCTET_ASSIGN_OR_RETURN(lane.computed, backend_->NewEvent());
    OCTET_ASSIGN_OR_RETURN(lane.moved, backend_->NewEvent());
  }
  OCTET_ASSIGN_OR_RETURN(transfers_, backend_->NewStream());
  return absl::OkStatus();
}

absl::Status MoeLayer::Mark(const Pass& pass,
                            const std::unique_ptr<Event>& event,
                            const StepContext& on) {
  return pass.two_streams() ? backend_->Record(*event, *on.stream)
                            : absl::OkStatus();
}

absl::Status MoeLayer::Await(const Pass& pass,
                             const std::unique_ptr<Event>& event,
                             const StepContext& on) {
  return pass.two_streams() ? backend_->Wait(*event, *on.stream)
                            : absl::OkStatus();
}

void MoeLayer::CountRows(const DispatchHandle& handle, int layer) {
  const absl::Span<const int> local = placement_->LocalExperts(rank_);
  for (size_t e = 0; e < local.size(); ++e) {
    expert_row_counts_[int64_t{layer} * shape_.num_experts + local[e]] +=
        handle.expert_offsets[e + 1] - handle.expert_offsets[e];
  }
}

int64_t MoeLayer::size_bytes() const {
  int64_t bytes =
      gate_.size_bytes() + experts_.size_bytes() +
      static_cast<int64_t>(logits_.size_bytes() + topk_ids_.size_bytes() +
                           topk_weights_.size_bytes());
  for (const Lane& lane : lanes_) {
    bytes += lane.dispatcher.size_bytes() +
             static_cast<int64_t>(lane.expert_out.size_bytes());
  }
  return bytes;
}

}  // namespace octet
