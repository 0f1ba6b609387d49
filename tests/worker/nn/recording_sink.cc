#include "tests/worker/nn/recording_sink.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/training_ops.h"

namespace octet::test {

std::string NameOf(const WeightId& id) {
  return absl::StrCat("kind ", static_cast<int>(id.kind), ", layer ", id.layer,
                      ", expert ", id.expert_id, ", part ",
                      static_cast<int>(id.part));
}

absl::Status RecordingSink::Add(
    const WeightId& id, int64_t slot, int64_t rows, int64_t cols,
    const std::function<absl::Status(Tensor)>& compute, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(const Tensor gradient,
                         gradient_.Get(DType::kF32, {rows, cols}, stream));
  OCTET_RETURN_IF_ERROR(
      backend_->Zero(gradient.data(), gradient.num_bytes(), stream));
  OCTET_RETURN_IF_ERROR(compute(gradient));
  std::vector<float> values(rows * cols);
  OCTET_RETURN_IF_ERROR(backend_->CopyToHost(
      values.data(), gradient.data(), gradient.num_bytes(), stream));
  OCTET_RETURN_IF_ERROR(backend_->Synchronize(stream));
  std::vector<float>& sum = gradients_[{NameOf(id), slot}];
  sum.resize(values.size());
  for (size_t i = 0; i < values.size(); ++i) sum[i] += values[i];
  return absl::OkStatus();
}

absl::Status RecordingSink::AddProduct(const WeightId& id, ConstTensor x,
                                       ConstTensor dy, float scale,
                                       absl::Span<const SlotRows> slots,
                                       Stream& stream) {
  for (const SlotRows& slot : slots) {
    const int64_t count = slot.end - slot.begin;
    OCTET_RETURN_IF_ERROR(Add(
        id, slot.slot, dy.dim(1), x.dim(1),
        [&](Tensor dw) {
          return train_ops::GemmBackwardWeight(
              *backend_->training(), x.Rows(slot.begin, count),
              dy.Rows(slot.begin, count), scale, false, dw, stream);
        },
        stream));
  }
  return absl::OkStatus();
}

absl::Status RecordingSink::AddNorm(const WeightId& id, ConstTensor x,
                                    float eps, ConstTensor dy,
                                    absl::Span<const SlotRows> slots,
                                    Stream& stream) {
  for (const SlotRows& slot : slots) {
    const int64_t count = slot.end - slot.begin;
    OCTET_RETURN_IF_ERROR(Add(
        id, slot.slot, 1, x.dim(1),
        [&](Tensor dw) {
          return train_ops::RmsNormBackwardWeight(
              *backend_->training(), x.Rows(slot.begin, count), eps,
              dy.Rows(slot.begin, count), false,
              Tensor(dw.data(), DType::kF32, {x.dim(1)}), stream);
        },
        stream));
  }
  return absl::OkStatus();
}

absl::Status RecordingSink::AddEmbedding(ConstTensor dx, ConstTensor ids,
                                         absl::Span<const SlotRows> slots,
                                         Stream& stream) {
  for (const SlotRows& slot : slots) {
    const int64_t count = slot.end - slot.begin;
    OCTET_RETURN_IF_ERROR(Add(
        {WeightKind::kEmbedding}, slot.slot, embedding_shape_[0],
        embedding_shape_[1],
        [&](Tensor dtable) {
          return train_ops::EmbeddingBackward(
              *backend_->training(), dx.Rows(slot.begin, count),
              ids.Rows(slot.begin, count), dtable, stream);
        },
        stream));
  }
  return absl::OkStatus();
}

std::vector<double> TotalOf(const SlotGradients& gradients,
                            const WeightId& id) {
  std::vector<double> total;
  const std::string name = NameOf(id);
  for (const auto& [key, values] : gradients) {
    if (key.first != name) continue;
    total.resize(values.size());
    for (size_t i = 0; i < values.size(); ++i) total[i] += values[i];
  }
  return total;
}

}  // namespace octet::test
