#include "worker/nn/linear.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/fused_ops.h"
#include "kernels/ops.h"
#include "kernels/philox.h"
#include "kernels/training_ops.h"

namespace octet {
namespace {

constexpr bool kAdd = true;
constexpr bool kWrite = false;

}  // namespace

uint64_t DropoutSeed(uint64_t run_seed, const WeightId& id) {
  const std::array<uint32_t, 4> bits = Philox(
      {static_cast<uint32_t>(id.kind), static_cast<uint32_t>(id.layer),
       static_cast<uint32_t>(id.expert_id), 0x64726f70},
      {static_cast<uint32_t>(run_seed), static_cast<uint32_t>(run_seed >> 32)});
  return (uint64_t{bits[1]} << 32) | bits[0];
}

Linear::AdapterMatrices::AdapterMatrices(
    absl::Span<const LoraWeights* const> lora) {
  for (const LoraWeights* adapter : lora) {
    a.push_back(adapter->a.get());
    b.push_back(adapter->b.get());
  }
}

Linear::Linear(Backend* backend)
    : backend_(backend),
      dropped_(backend),
      u_(backend),
      du_(backend),
      wide_(backend),
      masked_(backend),
      hidden_(backend) {}

absl::Status Linear::Forward(const LinearWeights& weights, ConstTensor x,
                             bool accumulate, Tensor out, Stream& stream) {
  return ForwardTraining(weights, {}, x, {}, accumulate, out, stream);
}

absl::Status Linear::Forward(const GroupedLinearWeights& weights, ConstTensor x,
                             absl::Span<const int64_t> row_offsets, Tensor out,
                             Stream& stream) {
  return ForwardTraining(weights, {}, x, row_offsets, {}, {}, out, stream);
}

absl::Status Linear::ForwardTraining(const LinearWeights& weights,
                                     const WeightId& id, ConstTensor x,
                                     const DropoutRows& dropout,
                                     bool accumulate, Tensor out,
                                     Stream& stream) {
  const int64_t row_offsets[] = {0, x.rows()};
  return Run(Dense(weights, id, row_offsets), x, dropout, {}, {out, accumulate},
             stream);
}

absl::Status Linear::ForwardTraining(const GroupedLinearWeights& weights,
                                     absl::Span<const WeightId> ids,
                                     ConstTensor x,
                                     absl::Span<const int64_t> row_offsets,
                                     const DropoutRows& dropout, Tensor kept_u,
                                     Tensor out, Stream& stream) {
  return Run(Grouped(weights, ids, row_offsets), x, dropout, kept_u, {out},
             stream);
}

absl::Status Linear::ForwardSwiGlu(const GroupedLinearWeights& w13,
                                   absl::Span<const WeightId> ids,
                                   ConstTensor x,
                                   absl::Span<const int64_t> row_offsets,
                                   const DropoutRows& dropout, Tensor kept_u,
                                   Tensor hidden, Tensor out, Stream& stream) {
  const bool keeps = hidden.data() != nullptr;
  if (!w13.adapted() && !keeps) {
    return ops::GroupedGemmSwiGlu(*backend_, x, w13.w, row_offsets, out,
                                  stream);
  }
  const Groups groups = Grouped(w13, ids, row_offsets);
  if (fused() != nullptr) {
    const AdapterMatrices matrices(groups.lora);
    OCTET_ASSIGN_OR_RETURN(
        const LowRank adapter,
        ReadyAdapter(groups, matrices, x, dropout, kept_u, stream));
    return fused_ops::LinearSwiGlu(*fused(), x, w13.w, row_offsets, adapter,
                                   hidden, out, stream);
  }
  OCTET_ASSIGN_OR_RETURN(
      const Tensor wide,
      hidden_.Get(DType::kF32, {x.rows(), 2 * out.dim(1)}, stream));
  OCTET_RETURN_IF_ERROR(Run(groups, x, dropout, kept_u, {wide}, stream));
  OCTET_RETURN_IF_ERROR(
      train_ops::SwiGlu(*backend_->training(), wide, out, stream));
  return keeps ? train_ops::Cast(*backend_->training(), wide, hidden, stream)
               : absl::OkStatus();
}

Linear::Groups Linear::Dense(const LinearWeights& weights, const WeightId& id,
                             absl::Span<const int64_t> row_offsets) {
  Groups groups;
  groups.w = absl::MakeConstSpan(&weights.w, 1);
  if (weights.lora) groups.lora = absl::MakeConstSpan(&weights.lora, 1);
  groups.ids = absl::MakeConstSpan(&id, 1);
  groups.row_offsets = row_offsets;
  return groups;
}

Linear::Groups Linear::Grouped(const GroupedLinearWeights& weights,
                               absl::Span<const WeightId> ids,
                               absl::Span<const int64_t> row_offsets) {
  Groups groups;
  groups.grouped = true;
  groups.w = weights.w;
  if (weights.adapted()) groups.lora = weights.lora;
  groups.ids = ids;
  groups.row_offsets = row_offsets;
  return groups;
}

FusedProducts* Linear::fused() const {
  TrainingBackend* training = backend_->training();
  return training == nullptr ? nullptr : training->fused();
}

absl::Status Linear::Run(const Groups& groups, ConstTensor x,
                         const DropoutRows& dropout, Tensor kept_u,
                         const Target& target, Stream& stream) {
  if (groups.lora.empty()) {
    return Multiply(groups, groups.w, x, target.accumulate, target.out, stream);
  }
  if (fused() == nullptr) {
    return ComposedRun(groups, x, dropout, kept_u, target, stream);
  }
  const AdapterMatrices matrices(groups.lora);
  OCTET_ASSIGN_OR_RETURN(
      const LowRank adapter,
      ReadyAdapter(groups, matrices, x, dropout, kept_u, stream));
  return fused_ops::Linear(*fused(), x, groups.w, groups.row_offsets, adapter,
                           target.accumulate, target.out, stream);
}

absl::StatusOr<LowRank> Linear::ReadyAdapter(const Groups& groups,
                                             const AdapterMatrices& matrices,
                                             ConstTensor x,
                                             const DropoutRows& dropout,
                                             Tensor kept_u, Stream& stream) {
  LowRank adapter;
  if (groups.lora.empty()) return adapter;
  adapter.a = matrices.a;
  adapter.b = matrices.b;
  OCTET_ASSIGN_OR_RETURN(adapter.u, MemoryOfU(groups, x, kept_u, stream));
  if (Drops(groups, dropout)) {
    OCTET_ASSIGN_OR_RETURN(const ConstTensor dropped,
                           Dropped(groups, x, dropout, stream));
    OCTET_RETURN_IF_ERROR(
        Multiply(groups, matrices.a, dropped, kWrite, adapter.u, stream));
    adapter.u_given = true;
  }
  return adapter;
}

absl::StatusOr<Tensor> Linear::MemoryOfU(const Groups& groups, ConstTensor x,
                                         Tensor kept_u, Stream& stream) {
  if (kept_u.data() != nullptr) return kept_u;
  return u_.Get(x.dtype(), {x.rows(), groups.lora[0]->a->n()}, stream);
}

absl::Status Linear::ComposedRun(const Groups& groups, ConstTensor x,
                                 const DropoutRows& dropout, Tensor kept_u,
                                 const Target& target, Stream& stream) {
  if (groups.grouped && backend_->training() == nullptr) {
    return absl::UnimplementedError(absl::StrCat(
        "adapters on experts: ", backend_->Description(),
        " has no training operations, which add them to the products"));
  }
  const bool narrow = target.out.dtype() != DType::kF32;
  Tensor sum = target.out;
  if (narrow) {
    OCTET_ASSIGN_OR_RETURN(
        sum, wide_.Get(DType::kF32, {sum.rows(), sum.dim(1)}, stream));
  }
  OCTET_RETURN_IF_ERROR(
      Multiply(groups, groups.w, x, target.accumulate, sum, stream));
  const AdapterMatrices matrices(groups.lora);
  OCTET_ASSIGN_OR_RETURN(const ConstTensor dropped,
                         Dropped(groups, x, dropout, stream));
  OCTET_ASSIGN_OR_RETURN(const Tensor u, MemoryOfU(groups, x, kept_u, stream));
  OCTET_RETURN_IF_ERROR(
      Multiply(groups, matrices.a, dropped, kWrite, u, stream));
  OCTET_RETURN_IF_ERROR(Multiply(groups, matrices.b, u, kAdd, sum, stream));
  return narrow
             ? train_ops::Cast(*backend_->training(), sum, target.out, stream)
             : absl::OkStatus();
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

bool Linear::Drops(const Groups& groups, const DropoutRows& dropout) {
  return dropout.on() && groups.lora[0]->dropout != 0;
}

absl::StatusOr<ConstTensor> Linear::Dropped(const Groups& groups, ConstTensor x,
                                            const DropoutRows& dropout,
                                            Stream& stream) {
  if (!Drops(groups, dropout)) return x;
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
                             int64_t k, int64_t rank, bool grouped, bool fused,
                             bool dropout, bool backward) {
  const int64_t width = static_cast<int64_t>(SizeOf(dtype));
  // What is not fused is summed in f32 before it leaves in the compute dtype.
  const bool composed = !fused || (backward && dropout);
  const bool narrow = grouped && composed && dtype != DType::kF32;
  // A grouped layer's u is the caller's.
  int64_t row = grouped ? 0 : width * rank;
  if (narrow) row += 4 * (backward ? k : n);
  if (dropout) row += width * k;
  if (backward) row += width * rank + (dropout ? 4 * k : 0);
  return num_rows * row;
}

int64_t Linear::SwiGluBytes(int64_t num_rows, int64_t chunk_rows, int64_t ffn,
                            bool fused, bool dropout) {
  constexpr int64_t kFloat = sizeof(float);
  if (!fused) return kFloat * ffn * std::max(num_rows, 2 * chunk_rows);
  return dropout ? kFloat * ffn * num_rows : 0;
}

int64_t Linear::size_bytes() const {
  return static_cast<int64_t>(dropped_.size_bytes() + u_.size_bytes() +
                              du_.size_bytes() + wide_.size_bytes() +
                              masked_.size_bytes() + hidden_.size_bytes());
}

}  // namespace octet
