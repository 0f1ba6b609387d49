#include "worker/train/live_weights.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/logging.h"
#include "base/status_macros.h"
#include "kernels/training_ops.h"

namespace octet {
namespace {

ExpertWeights* FindExpert(ModelWeights& weights, const WeightId& id) {
  std::vector<ExpertWeights>& experts = weights.layers[id.layer].experts;
  const auto found = std::find_if(
      experts.begin(), experts.end(),
      [&](const ExpertWeights& e) { return e.expert_id == id.expert_id; });
  return found == experts.end() ? nullptr : &*found;
}

// The tensor of a weight that is not a packed matrix; nullptr for the others.
OwnedTensor* FindTensor(ModelWeights& weights, const WeightId& id) {
  switch (id.kind) {
    case WeightKind::kEmbedding:
      return &weights.embedding;
    case WeightKind::kInputNorm:
      return &weights.layers[id.layer].input_norm;
    case WeightKind::kPostAttentionNorm:
      return &weights.layers[id.layer].post_attention_norm;
    case WeightKind::kFinalNorm:
      return &weights.final_norm;
    default:
      return nullptr;
  }
}

void ToFloats(const std::vector<char>& bytes, DType dtype, int64_t skip,
              int64_t count, float* out) {
  if (dtype == DType::kF32) {
    std::copy_n(reinterpret_cast<const float*>(bytes.data()) + skip, count,
                out);
    return;
  }
  const BF16* from = reinterpret_cast<const BF16*>(bytes.data()) + skip;
  std::transform(from, from + count, out,
                 [](BF16 value) { return ToFloat(value); });
}

}  // namespace

PackedMatrix* FindMatrix(ModelWeights& weights, const WeightId& id) {
  switch (id.kind) {
    case WeightKind::kQkv:
      return weights.layers[id.layer].qkv.get();
    case WeightKind::kO:
      return weights.layers[id.layer].o.get();
    case WeightKind::kGate:
      return weights.layers[id.layer].gate.get();
    case WeightKind::kLmHead:
      return weights.lm_head.get();
    case WeightKind::kW13:
    case WeightKind::kW2: {
      ExpertWeights* expert = FindExpert(weights, id);
      if (expert == nullptr) return nullptr;
      return id.kind == WeightKind::kW13 ? expert->w13.get() : expert->w2.get();
    }
    default:
      return nullptr;
  }
}

std::unique_ptr<LoraWeights>* FindLora(ModelWeights& weights,
                                       const WeightId& id) {
  switch (id.kind) {
    case WeightKind::kQkv:
      return &weights.layers[id.layer].qkv_lora;
    case WeightKind::kO:
      return &weights.layers[id.layer].o_lora;
    case WeightKind::kGate:
      return &weights.layers[id.layer].gate_lora;
    case WeightKind::kW13:
    case WeightKind::kW2: {
      ExpertWeights* expert = FindExpert(weights, id);
      if (expert == nullptr) return nullptr;
      return id.kind == WeightKind::kW13 ? &expert->w13_lora : &expert->w2_lora;
    }
    default:
      return nullptr;
  }
}

LiveWeights::LiveWeights(Backend* backend, const ModelConfig& config,
                         const ParameterSet* parameters, ModelWeights* weights)
    : backend_(backend),
      training_(backend->training()),
      config_(config),
      parameters_(parameters),
      weights_(weights),
      scaled_(backend),
      wide_(backend) {}

absl::StatusOr<LiveWeights::Adapters> LiveWeights::MakeAdapters(
    float scale, float dropout) const {
  Adapters adapters;
  for (const LoraTarget& target : parameters_->lora_targets()) {
    if (FindLora(*weights_, target.weight) == nullptr) continue;
    auto lora = std::make_unique<LoraWeights>();
    OCTET_ASSIGN_OR_RETURN(
        lora->a, backend_->NewPackedMatrix(weights_->dtype,
                                           target.stacked_rank(), target.k));
    OCTET_ASSIGN_OR_RETURN(lora->b,
                           backend_->NewPackedMatrix(weights_->dtype, target.n,
                                                     target.stacked_rank()));
    lora->scale = scale;
    lora->dropout = dropout;
    adapters.push_back(std::move(lora));
  }
  return adapters;
}

void LiveWeights::Attach(Adapters adapters) {
  for (LayerWeights& layer : weights_->layers) {
    layer.qkv_lora.reset();
    layer.o_lora.reset();
    layer.gate_lora.reset();
    for (ExpertWeights& expert : layer.experts) {
      expert.w13_lora.reset();
      expert.w2_lora.reset();
    }
  }
  auto next = adapters.begin();
  for (const LoraTarget& target : parameters_->lora_targets()) {
    std::unique_ptr<LoraWeights>* place = FindLora(*weights_, target.weight);
    if (place != nullptr) *place = std::move(*next++);
  }
}

absl::Status LiveWeights::Read(const Parameter& parameter, int64_t begin,
                               int64_t end, float* out, Stream& stream) const {
  if (const OwnedTensor* tensor = FindTensor(*weights_, parameter.weight)) {
    const DType dtype = tensor->view.dtype();
    const size_t element = SizeOf(dtype);
    std::vector<char> bytes((end - begin) * element);
    OCTET_RETURN_IF_ERROR(backend_->CopyToHost(
        bytes.data(),
        static_cast<const char*>(tensor->view.data()) + begin * element,
        bytes.size(), stream));
    OCTET_RETURN_IF_ERROR(backend_->Synchronize(stream));
    ToFloats(bytes, dtype, 0, end - begin, out);
    return absl::OkStatus();
  }
  const PackedMatrix* matrix = FindMatrix(*weights_, parameter.weight);
  OCTET_CHECK(matrix != nullptr) << parameter.name << " is not on this rank";
  // What is on the stream may still write the matrix.
  OCTET_RETURN_IF_ERROR(backend_->Synchronize(stream));
  const int64_t cols = parameter.cols;
  const int64_t first = begin / cols, last = (end + cols - 1) / cols;
  std::vector<char> bytes((last - first) * cols * SizeOf(matrix->dtype()));
  OCTET_RETURN_IF_ERROR(backend_->UnpackRows(
      *matrix, parameter.row_begin + first,
      Tensor(bytes.data(), matrix->dtype(), {last - first, cols})));
  ToFloats(bytes, matrix->dtype(), begin - first * cols, end - begin, out);
  return absl::OkStatus();
}

absl::Status LiveWeights::Write(const Parameter& parameter, int64_t row,
                                ConstTensor values, Stream& stream) {
  if (parameter.weight.part == WeightPart::kLoraB) {
    return WriteLoraB(parameter, row, values, stream);
  }
  if (parameter.weight.part == WeightPart::kLoraA) {
    LoraWeights& lora = **FindLora(*weights_, parameter.weight);
    return train_ops::Repack(*training_, *lora.a, parameter.row_begin + row,
                             values, stream);
  }
  if (const OwnedTensor* tensor = FindTensor(*weights_, parameter.weight)) {
    if (parameter.vector) {
      return train_ops::Cast(*training_, values, tensor->view, stream);
    }
    OCTET_RETURN_IF_ERROR(train_ops::Cast(
        *training_, values, tensor->view.Rows(row, values.rows()), stream));
    if (!config_.tie_word_embeddings) return absl::OkStatus();
    return train_ops::Repack(*training_, *weights_->lm_head, row, values,
                             stream);
  }
  PackedMatrix* matrix = FindMatrix(*weights_, parameter.weight);
  OCTET_CHECK(matrix != nullptr) << parameter.name << " is not on this rank";
  return train_ops::Repack(*training_, *matrix, parameter.row_begin + row,
                           values, stream);
}

// A module's B fills its own rows and columns of the packed s B; the other
// columns of these rows are zero.
absl::Status LiveWeights::WriteLoraB(const Parameter& parameter, int64_t row,
                                     ConstTensor values, Stream& stream) {
  LoraWeights& lora = **FindLora(*weights_, parameter.weight);
  const int64_t rows = values.rows(), width = lora.b->k();
  OCTET_ASSIGN_OR_RETURN(
      const Tensor scaled,
      scaled_.Get(DType::kF32, {rows, parameter.cols}, stream));
  OCTET_RETURN_IF_ERROR(
      backend_->Zero(scaled.data(), scaled.num_bytes(), stream));
  OCTET_RETURN_IF_ERROR(
      train_ops::AddScaled(*training_, values, lora.scale, scaled, stream));
  Tensor wide = scaled;
  if (width != parameter.cols) {
    OCTET_ASSIGN_OR_RETURN(wide, wide_.Get(DType::kF32, {rows, width}, stream));
    OCTET_RETURN_IF_ERROR(
        backend_->Zero(wide.data(), wide.num_bytes(), stream));
    OCTET_RETURN_IF_ERROR(train_ops::CopyBlock(
        *training_, scaled, {0, 0}, wide, {0, parameter.col_begin}, rows,
        parameter.cols, /*accumulate=*/false, stream));
  }
  return train_ops::Repack(*training_, *lora.b, parameter.row_begin + row, wide,
                           stream);
}

}  // namespace octet
