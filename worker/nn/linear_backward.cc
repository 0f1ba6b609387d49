#include "absl/types/span.h"
#include "base/status_macros.h"
#include "kernels/fused_ops.h"
#include "kernels/training_ops.h"
#include "worker/nn/linear.h"

namespace octet {
namespace {

constexpr bool kAdd = true;
constexpr bool kWrite = false;

WeightId PartOf(WeightId id, WeightPart part) {
  id.part = part;
  return id;
}

// One product for each group that has rows and whose weight is wanted.
// `scale_of` gives the group's scale.
template <typename ScaleOf>
absl::Status AddProducts(absl::Span<const WeightId> ids, WeightPart part,
                         ConstTensor x, ConstTensor dy, ScaleOf scale_of,
                         absl::Span<const absl::Span<const SlotRows>> slots,
                         GradientSink& sink, Stream& stream) {
  for (size_t g = 0; g < ids.size(); ++g) {
    const WeightId id = PartOf(ids[g], part);
    if (slots[g].empty() || !sink.Wants(id)) continue;
    OCTET_RETURN_IF_ERROR(
        sink.AddProduct(id, x, dy, scale_of(g), slots[g], stream));
  }
  return absl::OkStatus();
}

bool WantsAny(absl::Span<const WeightId> ids, WeightPart part,
              const GradientSink& sink) {
  for (const WeightId& id : ids) {
    if (sink.Wants(PartOf(id, part))) return true;
  }
  return false;
}

}  // namespace

absl::Status Linear::Backward(const LinearWeights& weights, const WeightId& id,
                              ConstTensor x, ConstTensor dy,
                              const DropoutRows& dropout,
                              absl::Span<const SlotRows> slots,
                              GradientSink& sink, bool accumulate, Tensor dx,
                              Stream& stream) {
  const int64_t row_offsets[] = {0, x.rows()};
  return RunBackward(Dense(weights, id, row_offsets),
                     {x, {}, dy, dropout, absl::MakeConstSpan(&slots, 1)}, sink,
                     {dx, accumulate}, stream);
}

absl::Status Linear::Backward(const GroupedLinearWeights& weights,
                              absl::Span<const WeightId> ids, ConstTensor x,
                              ConstTensor kept_u, ConstTensor dy,
                              absl::Span<const int64_t> row_offsets,
                              const DropoutRows& dropout,
                              absl::Span<const std::vector<SlotRows>> slots,
                              GradientSink& sink, Tensor dx, Stream& stream) {
  const std::vector<absl::Span<const SlotRows>> views(slots.begin(),
                                                      slots.end());
  return RunBackward(Grouped(weights, ids, row_offsets),
                     {x, kept_u, dy, dropout, views}, sink, {dx}, stream);
}

absl::Status Linear::BackwardSwiGlu(
    const GroupedLinearWeights& w2, absl::Span<const WeightId> ids, Tensor x,
    ConstTensor kept_u, ConstTensor dy, absl::Span<const int64_t> row_offsets,
    const DropoutRows& dropout, absl::Span<const std::vector<SlotRows>> slots,
    GradientSink& sink, Tensor hidden, Stream& stream) {
  const std::vector<absl::Span<const SlotRows>> views(slots.begin(),
                                                      slots.end());
  Target target;
  target.out = x;
  target.hidden = hidden;
  return RunBackward(Grouped(w2, ids, row_offsets),
                     {x, kept_u, dy, dropout, views}, sink, target, stream);
}

absl::Status Linear::RunBackward(const Groups& groups, const Gradient& gradient,
                                 GradientSink& sink, const Target& dx,
                                 Stream& stream) {
  const AdapterMatrices matrices(groups.lora);
  LowRank adapter;
  if (!groups.lora.empty()) {
    adapter.a = matrices.a;
    adapter.b = matrices.b;
    OCTET_ASSIGN_OR_RETURN(
        adapter.u, du_.Get(gradient.x.dtype(),
                           {gradient.x.rows(), matrices.a[0]->n()}, stream));
  }
  const bool drops = !groups.lora.empty() && Drops(groups, gradient.dropout);
  if (fused() == nullptr || drops) {
    OCTET_RETURN_IF_ERROR(
        ComposedBackward(groups, gradient, matrices, adapter.u, dx, stream));
  } else if (dx.through_swiglu()) {
    OCTET_RETURN_IF_ERROR(fused_ops::LinearSwiGluBackward(
        *fused(), gradient.dy, groups.w, groups.row_offsets, adapter, dx.hidden,
        dx.out, stream));
  } else {
    OCTET_RETURN_IF_ERROR(fused_ops::LinearBackward(
        *fused(), gradient.dy, groups.w, groups.row_offsets, adapter,
        dx.accumulate, dx.out, stream));
  }
  // Last: x may only be there now.
  OCTET_RETURN_IF_ERROR(AddProducts(
      groups.ids, WeightPart::kBase, gradient.x, gradient.dy,
      [](size_t) { return 1.0f; }, gradient.slots, sink, stream));
  if (groups.lora.empty()) return absl::OkStatus();
  return AdapterGradients(groups, gradient, matrices, adapter.u, sink, stream);
}

absl::Status Linear::ComposedBackward(const Groups& groups,
                                      const Gradient& gradient,
                                      const AdapterMatrices& matrices,
                                      Tensor du, const Target& dx,
                                      Stream& stream) {
  TrainingBackend& training = *backend_->training();
  const int64_t t = gradient.dy.rows(), k = gradient.x.dim(1);
  const bool swiglu = dx.through_swiglu();
  const bool narrow = !swiglu && dx.out.dtype() != DType::kF32;
  Tensor sum = dx.out;
  if (swiglu || narrow) {
    Scratch& memory = swiglu ? hidden_ : wide_;
    OCTET_ASSIGN_OR_RETURN(sum, memory.Get(DType::kF32, {t, k}, stream));
  }
  OCTET_RETURN_IF_ERROR(
      MultiplyBack(groups, groups.w, gradient.dy, dx.accumulate, sum, stream));
  if (!groups.lora.empty()) {
    OCTET_RETURN_IF_ERROR(
        MultiplyBack(groups, matrices.b, gradient.dy, kWrite, du, stream));
    if (Drops(groups, gradient.dropout)) {
      OCTET_ASSIGN_OR_RETURN(const Tensor masked,
                             masked_.Get(DType::kF32, {t, k}, stream));
      OCTET_RETURN_IF_ERROR(
          MultiplyBack(groups, matrices.a, du, kWrite, masked, stream));
      OCTET_RETURN_IF_ERROR(
          Drop(groups, masked, gradient.dropout, kAdd, sum, stream));
    } else {
      OCTET_RETURN_IF_ERROR(
          MultiplyBack(groups, matrices.a, du, kAdd, sum, stream));
    }
  }
  if (swiglu) {
    OCTET_RETURN_IF_ERROR(
        train_ops::SwiGlu(training, dx.hidden, dx.out, stream));
    return train_ops::SwiGluBackward(training, dx.hidden, sum, dx.hidden,
                                     stream);
  }
  return narrow ? train_ops::Cast(training, sum, dx.out, stream)
                : absl::OkStatus();
}

absl::Status Linear::AdapterGradients(const Groups& groups,
                                      const Gradient& gradient,
                                      const AdapterMatrices& matrices,
                                      ConstTensor du, GradientSink& sink,
                                      Stream& stream) {
  const bool wants_b = WantsAny(groups.ids, WeightPart::kLoraB, sink);
  if (!wants_b && !WantsAny(groups.ids, WeightPart::kLoraA, sink)) {
    return absl::OkStatus();
  }
  OCTET_ASSIGN_OR_RETURN(const ConstTensor dropped,
                         Dropped(groups, gradient.x, gradient.dropout, stream));
  OCTET_RETURN_IF_ERROR(AddProducts(
      groups.ids, WeightPart::kLoraA, dropped, du, [](size_t) { return 1.0f; },
      gradient.slots, sink, stream));
  if (!wants_b) return absl::OkStatus();
  ConstTensor u = gradient.kept_u;
  if (u.data() == nullptr) {
    OCTET_ASSIGN_OR_RETURN(const Tensor again,
                           MemoryOfU(groups, gradient.x, {}, stream));
    OCTET_RETURN_IF_ERROR(
        Multiply(groups, matrices.a, dropped, kWrite, again, stream));
    u = again;
  }
  return AddProducts(
      groups.ids, WeightPart::kLoraB, u, gradient.dy,
      [&](size_t g) { return groups.lora[g]->scale; }, gradient.slots, sink,
      stream);
}

absl::Status Linear::MultiplyBack(const Groups& groups, Matrices w,
                                  ConstTensor dy, bool accumulate, Tensor dx,
                                  Stream& stream) {
  TrainingBackend& training = *backend_->training();
  return groups.grouped
             ? train_ops::GroupedGemmBackwardInput(
                   training, dy, w, groups.row_offsets, accumulate, dx, stream)
             : train_ops::GemmBackwardInput(training, dy, *w[0], accumulate, dx,
                                            stream);
}

}  // namespace octet
