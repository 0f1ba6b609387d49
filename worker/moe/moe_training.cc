#include "worker/moe/moe_training.h"

#include <algorithm>
#include <limits>

#include "base/status_macros.h"
#include "kernels/ops.h"
#include "kernels/training_ops.h"
#include "worker/nn/phase_clock.h"

namespace octet {

MoeTraining::MoeTraining(Backend* backend, Communicator* communicator,
                         const Placement* placement, const MoeShape& shape)
    : backend_(backend),
      training_(backend->training()),
      placement_(placement),
      rank_(communicator->rank()),
      alone_(communicator->size() == 1),
      shape_(shape),
      dispatcher_(backend, communicator, placement),
      gate_(backend),
      linear_(backend),
      masked_logits_(backend),
      expert_out_(backend),
      expert_keys_(backend),
      sent_(backend),
      dout_(backend),
      din_(backend),
      mid_(backend),
      dweights_(backend),
      dlogits_(backend),
      dlogits_narrow_(backend),
      ones_(backend) {}

absl::Status MoeTraining::Forward(const MoeWeights& weights, ConstTensor x,
                                  const MoeBatch& batch,
                                  absl::Span<const int32_t> routes,
                                  Tensor residual, MoeTape& tape,
                                  const StepContext& step,
                                  MoeSeconds* seconds) {
  PhaseClock clock;
  Stream& stream = *step.stream;
  Pass pass = Begin(weights, batch, tape, step);
  OCTET_RETURN_IF_ERROR(Route(pass, x, routes));
  clock.AddTo(seconds->router);
  OCTET_ASSIGN_OR_RETURN(
      tape.handle, dispatcher_.Route(tape.topk_ids, batch.rank_tokens, step));
  tape.choices.assign(dispatcher_.own_choices().begin(),
                      dispatcher_.own_choices().end());
  OCTET_ASSIGN_OR_RETURN(const ConstTensor received,
                         dispatcher_.Dispatch(tape.handle, x, step));
  clock.AddTo(seconds->dispatch);

  Scratch& memory = alone_ ? tape.out_memory : expert_out_;
  OCTET_ASSIGN_OR_RETURN(
      const Tensor out,
      memory.Get(shape_.dtype, {tape.handle.expert_rows(), shape_.hidden_dim},
                 stream));
  OCTET_RETURN_IF_ERROR(ReadyDropout(pass));
  OCTET_RETURN_IF_ERROR(RunExperts(pass, received, out));
  clock.AddTo(seconds->expert);

  OCTET_ASSIGN_OR_RETURN(
      const CombinedRows combined,
      dispatcher_.CombineInto(tape.handle, out, tape.out_memory, step));
  tape.out = combined.rows;
  if (x.rows() > 0) {
    OCTET_RETURN_IF_ERROR(
        ops::CombineRows(*backend_, combined.rows, combined.slot_rows,
                         tape.topk_weights, residual, stream));
  }
  clock.AddTo(seconds->combine);
  // Host arrays may still be on their way to the device.
  return backend_->Synchronize(stream);
}

MoeTraining::Pass MoeTraining::Begin(const MoeWeights& weights,
                                     const MoeBatch& batch, MoeTape& tape,
                                     const StepContext& step) const {
  Pass pass{weights, batch, tape, step, {}, {}};
  for (int expert : placement_->LocalExperts(rank_)) {
    pass.w13_ids.push_back({WeightKind::kW13, step.layer, expert});
    pass.w2_ids.push_back({WeightKind::kW2, step.layer, expert});
  }
  return pass;
}

// logits, choices and their weights. A choice that is given is made the
// router's by hiding the other logits from it.
absl::Status MoeTraining::Route(Pass& pass, ConstTensor x,
                                absl::Span<const int32_t> routes) {
  MoeTape& tape = pass.tape;
  Stream& stream = *pass.step.stream;
  const int64_t num_tokens = x.rows();
  const int num_experts = shape_.num_experts;
  OCTET_ASSIGN_OR_RETURN(
      tape.logits,
      tape.logits_memory.Get(DType::kF32, {num_tokens, num_experts}, stream));
  OCTET_ASSIGN_OR_RETURN(
      tape.topk_ids,
      tape.ids_memory.Get(DType::kI32, {num_tokens, shape_.top_k}, stream));
  OCTET_ASSIGN_OR_RETURN(
      tape.topk_weights,
      tape.weights_memory.Get(DType::kF32, {num_tokens, shape_.top_k}, stream));
  if (num_tokens == 0) return absl::OkStatus();
  OCTET_RETURN_IF_ERROR(gate_.ForwardTraining(
      pass.weights.gate, {WeightKind::kGate, pass.step.layer}, x,
      pass.batch.dropout, false, tape.logits, stream));
  if (routes.empty()) {
    return ops::Router(*backend_, tape.logits, tape.topk_ids, tape.topk_weights,
                       stream);
  }
  const size_t count = num_tokens * num_experts;
  std::vector<float> logits(count);
  host_logits_.assign(count, -std::numeric_limits<float>::infinity());
  OCTET_RETURN_IF_ERROR(backend_->CopyToHost(logits.data(), tape.logits.data(),
                                             tape.logits.num_bytes(), stream));
  OCTET_RETURN_IF_ERROR(backend_->Synchronize(stream));
  for (size_t i = 0; i < routes.size(); ++i) {
    const size_t row = i / shape_.top_k * num_experts;
    const bool given = routes[i] >= 0;
    const size_t begin = given ? row + routes[i] : row;
    std::copy_n(logits.begin() + begin, given ? 1 : num_experts,
                host_logits_.begin() + begin);
  }
  OCTET_ASSIGN_OR_RETURN(
      const Tensor masked,
      masked_logits_.Get(DType::kF32, {num_tokens, num_experts}, stream));
  OCTET_RETURN_IF_ERROR(backend_->CopyToDevice(
      masked.data(), host_logits_.data(), masked.num_bytes(), stream));
  return ops::Router(*backend_, masked, tape.topk_ids, tape.topk_weights,
                     stream);
}

// Names the expert rows for dropout, wherever their tokens come from.
absl::Status MoeTraining::ReadyDropout(Pass& pass) {
  const DispatchHandle& handle = pass.tape.handle;
  if (!pass.batch.drop || handle.expert_rows() == 0) return absl::OkStatus();
  const SlotMap& slots = *pass.batch.slot_map;
  host_keys_.clear();
  for (int32_t pair : handle.expert_pairs) {
    const int64_t token = pair / handle.top_k;
    host_keys_.push_back(slots.RowKey(slots.SlotOf(token), token));
  }
  Stream& stream = *pass.step.stream;
  OCTET_ASSIGN_OR_RETURN(
      const Tensor keys,
      expert_keys_.Get(DType::kI64, {handle.expert_rows()}, stream));
  OCTET_RETURN_IF_ERROR(backend_->CopyToDevice(keys.data(), host_keys_.data(),
                                               keys.num_bytes(), stream));
  pass.expert_dropout = {keys, pass.batch.dropout.run_seed};
  return absl::OkStatus();
}

absl::Status MoeTraining::RunExperts(Pass& pass, ConstTensor received,
                                     Tensor out) {
  MoeTape& tape = pass.tape;
  Stream& stream = *pass.step.stream;
  const DispatchHandle& handle = tape.handle;
  const int64_t num_rows = handle.expert_rows();
  OCTET_RETURN_IF_ERROR(ReadyTape(pass));
  if (num_rows == 0) return absl::OkStatus();
  OCTET_RETURN_IF_ERROR(
      dispatcher_.GatherExpertRows(handle, received, 0, tape.in, pass.step));
  // The rows of `count` from `begin` on, of what an adapter may keep.
  const auto kept = [](const Tensor& u, int64_t begin, int64_t count) {
    return u.data() == nullptr ? Tensor() : u.Rows(begin, count);
  };
  for (int64_t begin = 0; begin < num_rows; begin += shape_.max_expert_rows) {
    const int64_t count = std::min(shape_.max_expert_rows, num_rows - begin);
    const std::vector<int64_t> offsets =
        OffsetsWithin(handle.expert_offsets, begin, count);
    const DropoutRows dropout = pass.expert_dropout.Rows(begin, count);
    OCTET_ASSIGN_OR_RETURN(
        const Tensor mid,
        mid_.Get(shape_.dtype, {count, shape_.ffn_dim}, stream));
    OCTET_RETURN_IF_ERROR(linear_.ForwardSwiGlu(
        pass.weights.w13, pass.w13_ids, tape.in.Rows(begin, count), offsets,
        dropout, kept(tape.u13, begin, count), tape.hidden.Rows(begin, count),
        mid, stream));
    OCTET_RETURN_IF_ERROR(linear_.ForwardTraining(
        pass.weights.w2, pass.w2_ids, mid, offsets, dropout,
        kept(tape.u2, begin, count), out.Rows(begin, count), stream));
  }
  return absl::OkStatus();
}

// The tape's tensors of the expert rows.
absl::Status MoeTraining::ReadyTape(Pass& pass) {
  MoeTape& tape = pass.tape;
  Stream& stream = *pass.step.stream;
  const DType dtype = shape_.dtype;
  const int64_t num_rows = tape.handle.expert_rows();
  const int64_t f = shape_.ffn_dim;
  OCTET_ASSIGN_OR_RETURN(
      tape.in,
      tape.in_memory.Get(dtype, {num_rows, shape_.hidden_dim}, stream));
  OCTET_ASSIGN_OR_RETURN(
      tape.hidden, tape.hidden_memory.Get(dtype, {num_rows, 2 * f}, stream));
  tape.u13 = tape.u2 = Tensor();
  if (pass.weights.w13.adapted()) {
    OCTET_ASSIGN_OR_RETURN(
        tape.u13, tape.u13_memory.Get(
                      dtype, {num_rows, pass.weights.w13.rank()}, stream));
  }
  if (pass.weights.w2.adapted()) {
    OCTET_ASSIGN_OR_RETURN(
        tape.u2,
        tape.u2_memory.Get(dtype, {num_rows, pass.weights.w2.rank()}, stream));
  }
  return absl::OkStatus();
}

absl::Status MoeTraining::Backward(const MoeWeights& weights, ConstTensor x,
                                   const MoeBatch& batch, ConstTensor dy,
                                   const RouterGradient& router, MoeTape& tape,
                                   Tensor dx, GradientSink& sink,
                                   const StepContext& step,
                                   MoeSeconds* seconds) {
  PhaseClock clock;
  Stream& stream = *step.stream;
  Pass pass = Begin(weights, batch, tape, step);
  const int64_t num_tokens = x.rows(), h = shape_.hidden_dim;
  const int64_t num_rows = tape.handle.expert_rows();
  OCTET_ASSIGN_OR_RETURN(
      const ConstTensor row_weights,
      dispatcher_.ExpertRowWeights(tape.handle, tape.topk_weights,
                                   batch.rank_tokens, step));
  OCTET_ASSIGN_OR_RETURN(const ConstTensor sent,
                         InComputeDtype(dy, sent_, stream));
  OCTET_ASSIGN_OR_RETURN(const ConstTensor received,
                         dispatcher_.Dispatch(tape.handle, sent, step));
  clock.AddTo(seconds->dispatch);

  OCTET_ASSIGN_OR_RETURN(const Tensor dout,
                         dout_.Get(shape_.dtype, {num_rows, h}, stream));
  OCTET_ASSIGN_OR_RETURN(const Tensor din,
                         din_.Get(shape_.dtype, {num_rows, h}, stream));
  if (num_rows > 0) {
    OCTET_RETURN_IF_ERROR(
        dispatcher_.GatherExpertRows(tape.handle, received, 0, dout, step));
    OCTET_RETURN_IF_ERROR(
        train_ops::ScaleRows(*training_, dout, row_weights, dout, stream));
    OCTET_RETURN_IF_ERROR(ReadyDropout(pass));
    OCTET_RETURN_IF_ERROR(ExpertsBackward(pass, dout, din, sink));
  }
  clock.AddTo(seconds->expert);

  OCTET_ASSIGN_OR_RETURN(const CombinedRows combined,
                         dispatcher_.Combine(tape.handle, din, step));
  if (num_tokens > 0) {
    OCTET_ASSIGN_OR_RETURN(const ConstTensor ones, Ones(num_tokens, stream));
    OCTET_RETURN_IF_ERROR(backend_->Zero(dx.data(), dx.num_bytes(), stream));
    OCTET_RETURN_IF_ERROR(ops::CombineRows(
        *backend_, combined.rows, combined.slot_rows, ones, dx, stream));
  }
  clock.AddTo(seconds->combine);
  if (num_tokens > 0) {
    OCTET_RETURN_IF_ERROR(
        RouterBackward(pass, x, dy, combined.slot_rows, router, dx, sink));
  }
  clock.AddTo(seconds->router);
  return backend_->Synchronize(stream);
}

absl::Status MoeTraining::ExpertsBackward(Pass& pass, ConstTensor dout,
                                          Tensor din, GradientSink& sink) {
  MoeTape& tape = pass.tape;
  Stream& stream = *pass.step.stream;
  const std::vector<std::vector<SlotRows>> slots = ExpertSlots(pass);
  const std::vector<int64_t>& offsets = tape.handle.expert_offsets;
  OCTET_ASSIGN_OR_RETURN(
      const Tensor mid,
      mid_.Get(shape_.dtype, {dout.rows(), shape_.ffn_dim}, stream));
  OCTET_RETURN_IF_ERROR(linear_.BackwardSwiGlu(
      pass.weights.w2, pass.w2_ids, mid, tape.u2, dout, offsets,
      pass.expert_dropout, slots, sink, tape.hidden, stream));
  return linear_.Backward(pass.weights.w13, pass.w13_ids, tape.in, tape.u13,
                          tape.hidden, offsets, pass.expert_dropout, slots,
                          sink, din, stream);
}

absl::Status MoeTraining::RouterBackward(Pass& pass, ConstTensor x,
                                         ConstTensor dy, ConstTensor slot_rows,
                                         const RouterGradient& router,
                                         Tensor dx, GradientSink& sink) {
  MoeTape& tape = pass.tape;
  Stream& stream = *pass.step.stream;
  const int64_t num_tokens = x.rows();
  OCTET_ASSIGN_OR_RETURN(
      const Tensor dweights,
      dweights_.Get(DType::kF32, {num_tokens, shape_.top_k}, stream));
  OCTET_ASSIGN_OR_RETURN(
      const Tensor dlogits,
      dlogits_.Get(DType::kF32, {num_tokens, shape_.num_experts}, stream));
  OCTET_RETURN_IF_ERROR(train_ops::SlotDots(*training_, dy, tape.out, slot_rows,
                                            dweights, stream));
  OCTET_RETURN_IF_ERROR(train_ops::RouterBackward(
      *training_, tape.topk_ids, tape.topk_weights, dweights, dlogits, stream));
  for (size_t i = 0; i < router.rows.size(); ++i) {
    const RouterGradient::Rows& rows = router.rows[i];
    const int64_t count = rows.end - rows.begin;
    const ConstTensor coef(router.coefs.Rows(static_cast<int64_t>(i), 1).data(),
                           DType::kF32, {shape_.num_experts});
    OCTET_RETURN_IF_ERROR(train_ops::RouterLossBackward(
        *training_, tape.logits.Rows(rows.begin, count), coef, rows.z_coef,
        dlogits.Rows(rows.begin, count), stream));
  }
  OCTET_ASSIGN_OR_RETURN(const ConstTensor narrow,
                         InComputeDtype(dlogits, dlogits_narrow_, stream));
  return gate_.Backward(pass.weights.gate, {WeightKind::kGate, pass.step.layer},
                        x, narrow, pass.batch.dropout, pass.batch.own_slots,
                        sink, true, dx, stream);
}

std::vector<std::vector<SlotRows>> MoeTraining::ExpertSlots(
    const Pass& pass) const {
  const DispatchHandle& handle = pass.tape.handle;
  const SlotMap& map = *pass.batch.slot_map;
  std::vector<std::vector<SlotRows>> slots(handle.expert_offsets.size() - 1);
  for (size_t e = 0; e < slots.size(); ++e) {
    for (int64_t row = handle.expert_offsets[e];
         row < handle.expert_offsets[e + 1]; ++row) {
      const int64_t slot = map.first_sink_slot +
                           map.SlotOf(handle.expert_pairs[row] / handle.top_k);
      if (slots[e].empty() || slots[e].back().slot != slot) {
        slots[e].push_back({slot, row, row});
      }
      slots[e].back().end = row + 1;
    }
  }
  return slots;
}

absl::StatusOr<ConstTensor> MoeTraining::InComputeDtype(ConstTensor x,
                                                        Scratch& memory,
                                                        Stream& stream) {
  if (shape_.dtype == DType::kF32) return x;
  OCTET_ASSIGN_OR_RETURN(
      const Tensor out, memory.Get(shape_.dtype, {x.rows(), x.dim(1)}, stream));
  if (x.rows() > 0) {
    OCTET_RETURN_IF_ERROR(train_ops::Cast(*training_, x, out, stream));
  }
  return ConstTensor(out);
}

absl::StatusOr<ConstTensor> MoeTraining::Ones(int64_t num_tokens,
                                              Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(
      const Tensor ones,
      ones_.Get(DType::kF32, {num_tokens, shape_.top_k}, stream));
  host_ones_.resize(num_tokens * shape_.top_k, 1.0f);
  OCTET_RETURN_IF_ERROR(backend_->CopyToDevice(ones.data(), host_ones_.data(),
                                               ones.num_bytes(), stream));
  return ConstTensor(ones);
}

int64_t MoeTraining::size_bytes() const {
  return dispatcher_.size_bytes() + gate_.size_bytes() + linear_.size_bytes() +
         static_cast<int64_t>(
             masked_logits_.size_bytes() + expert_out_.size_bytes() +
             expert_keys_.size_bytes() + sent_.size_bytes() +
             dout_.size_bytes() + din_.size_bytes() + mid_.size_bytes() +
             dweights_.size_bytes() + dlogits_.size_bytes() +
             dlogits_narrow_.size_bytes() + ones_.size_bytes());
}

int64_t MoeTraining::WorkspaceBytes(const MoeShape& shape, int64_t num_tokens,
                                    int64_t num_expert_rows) {
  const int64_t width = static_cast<int64_t>(SizeOf(shape.dtype));
  const int64_t pairs = num_tokens * shape.top_k;
  const int64_t row = width * shape.hidden_dim;
  // Rows: sent (twice: as they are, and by destination), received, returned,
  // and what experts read and write forward and backward.
  return row * (2 * num_tokens + pairs + 5 * num_expert_rows) +
         width * num_expert_rows * shape.ffn_dim + 12 * num_expert_rows +
         8 * pairs + 12 * num_tokens * shape.num_experts;
}

}  // namespace octet
