#include "worker/nn/linear.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "kernels/ops.h"
#include "kernels/philox.h"
#include "kernels/training_ops.h"

namespace octet {
namespace {

constexpr bool kAdd = true;
constexpr bool kWrite = false;

std::vector<const PackedMatrix*> MatricesA(
    absl::Span<const LoraWeights* const> lora) {
  std::vector<const PackedMatrix*> out;
  for (const LoraWeights* adapter : lora) out.push_back(adapter->a.get());
  return out;
}

std::vector<const PackedMatrix*> MatricesB(
    absl::Span<const LoraWeights* const> lora) {
  std::vector<const PackedMatrix*> out;
  for (const LoraWeights* adapter : lora) out.push_back(adapter->b.get());
  return out;
}

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

uint64_t DropoutSeed(uint64_t run_seed, const WeightId& id) {
  const std::array<uint32_t, 4> bits = Philox(
      {static_cast<uint32_t>(id.kind), static_cast<uint32_t>(id.layer),
       static_cast<uint32_t>(id.expert_id), 0x64726f70},
      {static_cast<uint32_t>(run_seed), static_cast<uint32_t>(run_seed >> 32)});
  return (uint64_t{bits[1]} << 32) | bits[0];
}

Linear::Linear(Backend* backend)
    : backend_(backend),
      dropped_(backend),
      u_(backend),
      du_(backend),
      wide_(backend),
      masked_(backend) {}

absl::Status Linear::Forward(const LinearWeights& weights, ConstTensor x,
                             bool accumulate, Tensor out, Stream& stream) {
  return ForwardTraining(weights, {}, x, {}, accumulate, out, stream);
}

absl::Status Linear::Forward(const GroupedLinearWeights& weights, ConstTensor x,
                             absl::Span<const int64_t> row_offsets, Tensor out,
                             Stream& stream) {
  return ForwardTraining(weights, {}, x, row_offsets, {}, out, stream);
}

absl::Status Linear::ForwardTraining(const LinearWeights& weights,
                                     const WeightId& id, ConstTensor x,
                                     const DropoutRows& dropout,
                                     bool accumulate, Tensor out,
                                     Stream& stream) {
  const int64_t row_offsets[] = {0, x.rows()};
  Groups groups;
  groups.w = absl::MakeConstSpan(&weights.w, 1);
  if (weights.lora) groups.lora = absl::MakeConstSpan(&weights.lora, 1);
  groups.ids = absl::MakeConstSpan(&id, 1);
  groups.row_offsets = row_offsets;
  return Run(groups, x, dropout, accumulate, out, stream);
}

absl::Status Linear::ForwardTraining(const GroupedLinearWeights& weights,
                                     absl::Span<const WeightId> ids,
                                     ConstTensor x,
                                     absl::Span<const int64_t> row_offsets,
                                     const DropoutRows& dropout, Tensor out,
                                     Stream& stream) {
  Groups groups;
  groups.grouped = true;
  groups.w = weights.w;
  if (weights.adapted()) groups.lora = weights.lora;
  groups.ids = ids;
  groups.row_offsets = row_offsets;
  return Run(groups, x, dropout, kWrite, out, stream);
}

absl::Status Linear::Backward(const LinearWeights& weights, const WeightId& id,
                              ConstTensor x, ConstTensor dy,
                              const DropoutRows& dropout,
                              absl::Span<const SlotRows> slots,
                              GradientSink& sink, bool accumulate, Tensor dx,
                              Stream& stream) {
  const int64_t row_offsets[] = {0, x.rows()};
  Groups groups;
  groups.w = absl::MakeConstSpan(&weights.w, 1);
  if (weights.lora) groups.lora = absl::MakeConstSpan(&weights.lora, 1);
  groups.ids = absl::MakeConstSpan(&id, 1);
  groups.row_offsets = row_offsets;
  return RunBackward(groups, x, dy, dropout, absl::MakeConstSpan(&slots, 1),
                     sink, accumulate, dx, stream);
}

absl::Status Linear::Backward(const GroupedLinearWeights& weights,
                              absl::Span<const WeightId> ids, ConstTensor x,
                              ConstTensor dy,
                              absl::Span<const int64_t> row_offsets,
                              const DropoutRows& dropout,
                              absl::Span<const std::vector<SlotRows>> slots,
                              GradientSink& sink, Tensor dx, Stream& stream) {
  Groups groups;
  groups.grouped = true;
  groups.w = weights.w;
  if (weights.adapted()) groups.lora = weights.lora;
  groups.ids = ids;
  groups.row_offsets = row_offsets;
  const std::vector<absl::Span<const SlotRows>> views(slots.begin(),
                                                      slots.end());
  const bool narrow = dx.dtype() != DType::kF32 && weights.adapted();
  Tensor sum = dx;
  if (narrow) {
    OCTET_ASSIGN_OR_RETURN(
        sum, wide_.Get(DType::kF32, {dx.rows(), dx.dim(1)}, stream));
  }
  OCTET_RETURN_IF_ERROR(
      RunBackward(groups, x, dy, dropout, views, sink, kWrite, sum, stream));
  return narrow ? train_ops::Cast(*backend_->training(), sum, dx, stream)
                : absl::OkStatus();
}

absl::Status Linear::Run(const Groups& groups, ConstTensor x,
                         const DropoutRows& dropout, bool accumulate,
                         Tensor out, Stream& stream) {
  if (groups.lora.empty()) {
    return Multiply(groups, groups.w, x, accumulate, out, stream);
  }
  if (groups.grouped && backend_->training() == nullptr) {
    return absl::UnimplementedError(absl::StrCat(
        "adapters on experts: ", backend_->Description(),
        " has no training operations, which add them to the products"));
  }
  const bool narrow = out.dtype() != DType::kF32;
  Tensor sum = out;
  if (narrow) {
    OCTET_ASSIGN_OR_RETURN(
        sum, wide_.Get(DType::kF32, {out.rows(), out.dim(1)}, stream));
  }
  OCTET_RETURN_IF_ERROR(Multiply(groups, groups.w, x, accumulate, sum, stream));
  OCTET_RETURN_IF_ERROR(AddAdapter(groups, x, dropout, sum, stream));
  return narrow ? train_ops::Cast(*backend_->training(), sum, out, stream)
                : absl::OkStatus();
}

absl::Status Linear::AddAdapter(const Groups& groups, ConstTensor x,
                                const DropoutRows& dropout, Tensor out,
                                Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(const ConstTensor dropped,
                         Dropped(groups, x, dropout, stream));
  OCTET_ASSIGN_OR_RETURN(
      const Tensor u,
      u_.Get(x.dtype(), {x.rows(), groups.lora[0]->a->n()}, stream));
  OCTET_RETURN_IF_ERROR(
      Multiply(groups, MatricesA(groups.lora), dropped, kWrite, u, stream));
  return Multiply(groups, MatricesB(groups.lora), u, kAdd, out, stream);
}

absl::Status Linear::RunBackward(const Groups& groups, ConstTensor x,
                                 ConstTensor dy, const DropoutRows& dropout,
                                 Slots slots, GradientSink& sink,
                                 bool accumulate, Tensor dx, Stream& stream) {
  OCTET_RETURN_IF_ERROR(AddProducts(
      groups.ids, WeightPart::kBase, x, dy, [](size_t) { return 1.0f; }, slots,
      sink, stream));
  OCTET_RETURN_IF_ERROR(
      MultiplyBack(groups, groups.w, dy, accumulate, dx, stream));
  if (groups.lora.empty()) return absl::OkStatus();
  return AdapterBackward(groups, x, dy, dropout, slots, sink, dx, stream);
}

absl::Status Linear::AdapterBackward(const Groups& groups, ConstTensor x,
                                     ConstTensor dy, const DropoutRows& dropout,
                                     Slots slots, GradientSink& sink, Tensor dx,
                                     Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(
      const Tensor du,
      du_.Get(x.dtype(), {x.rows(), groups.lora[0]->a->n()}, stream));
  OCTET_RETURN_IF_ERROR(
      MultiplyBack(groups, MatricesB(groups.lora), dy, kWrite, du, stream));
  OCTET_RETURN_IF_ERROR(
      AdapterGradients(groups, x, dy, du, dropout, slots, sink, stream));
  const std::vector<const PackedMatrix*> a = MatricesA(groups.lora);
  if (!dropout.on() || groups.lora[0]->dropout == 0) {
    return MultiplyBack(groups, a, du, kAdd, dx, stream);
  }
  OCTET_ASSIGN_OR_RETURN(
      const Tensor masked,
      masked_.Get(DType::kF32, {x.rows(), x.dim(1)}, stream));
  OCTET_RETURN_IF_ERROR(MultiplyBack(groups, a, du, kWrite, masked, stream));
  return Drop(groups, masked, dropout, kAdd, dx, stream);
}

// What A and B read in the forward pass is computed again: it costs r products
// per element of x, against n.
absl::Status Linear::AdapterGradients(const Groups& groups, ConstTensor x,
                                      ConstTensor dy, ConstTensor du,
                                      const DropoutRows& dropout, Slots slots,
                                      GradientSink& sink, Stream& stream) {
  const bool wants_b = WantsAny(groups.ids, WeightPart::kLoraB, sink);
  if (!wants_b && !WantsAny(groups.ids, WeightPart::kLoraA, sink)) {
    return absl::OkStatus();
  }
  OCTET_ASSIGN_OR_RETURN(const ConstTensor dropped,
                         Dropped(groups, x, dropout, stream));
  OCTET_RETURN_IF_ERROR(AddProducts(
      groups.ids, WeightPart::kLoraA, dropped, du, [](size_t) { return 1.0f; },
      slots, sink, stream));
  if (!wants_b) return absl::OkStatus();
  OCTET_ASSIGN_OR_RETURN(
      const Tensor u,
      u_.Get(x.dtype(), {x.rows(), groups.lora[0]->a->n()}, stream));
  OCTET_RETURN_IF_ERROR(
      Multiply(groups, MatricesA(groups.lora), dropped, kWrite, u, stream));
  return AddProducts(
      groups.ids, WeightPart::kLoraB, u, dy,
      [&](size_t g) { return groups.lora[g]->scale; }, slots, sink, stream);
}

absl::Status Linear::Multiply(const Groups& groups, Matrices w, ConstTensor x,
                              bool accumulate, Tensor out, Stream& stream) {
  if (!groups.grouped) {
    return ops::Gemm(*backend_, x, *w[0], accumulate, out, stream);
  }
  return accumulate
             ? train_ops::GroupedGemmAccumulate(*backend_->training(), x, w,
                                                groups.row_offsets, out, stream)
             : ops::GroupedGemm(*backend_, x, w, groups.row_offsets, out,
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

absl::StatusOr<ConstTensor> Linear::Dropped(const Groups& groups, ConstTensor x,
                                            const DropoutRows& dropout,
                                            Stream& stream) {
  if (!dropout.on() || groups.lora[0]->dropout == 0) return x;
  OCTET_ASSIGN_OR_RETURN(const Tensor dropped,
                         dropped_.Get(x.dtype(), {x.rows(), x.dim(1)}, stream));
  OCTET_RETURN_IF_ERROR(Drop(groups, x, dropout, kWrite, dropped, stream));
  return ConstTensor(dropped);
}

absl::Status Linear::Drop(const Groups& groups, ConstTensor x,
                          const DropoutRows& dropout, bool accumulate,
                          Tensor out, Stream& stream) {
  for (size_t g = 0; g < groups.ids.size(); ++g) {
    const int64_t begin = groups.row_offsets[g];
    const int64_t count = groups.row_offsets[g + 1] - begin;
    if (count == 0) continue;
    OCTET_RETURN_IF_ERROR(train_ops::Dropout(
        *backend_->training(), x.Rows(begin, count),
        dropout.row_keys.Rows(begin, count),
        DropoutSeed(dropout.run_seed, groups.ids[g]), groups.lora[g]->dropout,
        accumulate, out.Rows(begin, count), stream));
  }
  return absl::OkStatus();
}

int64_t Linear::AdapterBytes(DType dtype, int64_t num_rows, int64_t n,
                             int64_t k, int64_t rank, bool grouped,
                             bool dropout, bool backward) {
  const int64_t width = static_cast<int64_t>(SizeOf(dtype));
  // Outputs and gradients that leave in the compute dtype are summed in f32.
  const bool narrow = grouped && dtype != DType::kF32;
  int64_t row = width * rank + (narrow ? 4 * (backward ? k : n) : 0);
  if (dropout) row += width * k;
  if (backward) row += width * rank + (dropout ? 4 * k : 0);
  return num_rows * row;
}

int64_t Linear::size_bytes() const {
  return static_cast<int64_t>(dropped_.size_bytes() + u_.size_bytes() +
                              du_.size_bytes() + wide_.size_bytes() +
                              masked_.size_bytes());
}

}  // namespace octet
