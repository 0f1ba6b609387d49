#include "worker/train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/training_ops.h"

namespace octet {
namespace {

constexpr int64_t kChunk = TrainingBackend::kSquareChunk;
constexpr int64_t kFloatBytes = sizeof(float);

int64_t NumChunks(int64_t num_elements) {
  return (num_elements + kChunk - 1) / kChunk;
}

AdamWParams ToParams(const v1::AdamWConfig& config) {
  AdamWParams params;
  params.learning_rate = static_cast<float>(config.learning_rate());
  if (config.has_beta1()) params.beta1 = static_cast<float>(config.beta1());
  if (config.has_beta2()) params.beta2 = static_cast<float>(config.beta2());
  if (config.has_eps()) params.eps = static_cast<float>(config.eps());
  params.weight_decay = static_cast<float>(config.weight_decay());
  return params;
}

absl::Status CheckField(absl::string_view field, double value, bool holds,
                        absl::string_view expected) {
  if (holds) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("adamw.", field, " is ", value, ", expected ", expected));
}

}  // namespace

absl::Status CheckAdamW(const v1::AdamWConfig& config) {
  const auto not_negative = [](double value) {
    return value >= 0 && value <= 1e30;
  };
  const auto decay = [](double value) {
    // What is below 1 in f32 too.
    return value >= 0 && static_cast<float>(value) < 1.0f;
  };
  OCTET_RETURN_IF_ERROR(CheckField("learning_rate", config.learning_rate(),
                                   not_negative(config.learning_rate()),
                                   "0 or more, and finite"));
  if (config.has_beta1()) {
    OCTET_RETURN_IF_ERROR(CheckField(
        "beta1", config.beta1(), decay(config.beta1()), "0 or more, below 1"));
  }
  if (config.has_beta2()) {
    OCTET_RETURN_IF_ERROR(CheckField(
        "beta2", config.beta2(), decay(config.beta2()), "0 or more, below 1"));
  }
  if (config.has_eps()) {
    OCTET_RETURN_IF_ERROR(CheckField("eps", config.eps(),
                                     not_negative(config.eps()),
                                     "0 or more, and finite"));
  }
  OCTET_RETURN_IF_ERROR(CheckField("weight_decay", config.weight_decay(),
                                   not_negative(config.weight_decay()),
                                   "0 or more, and finite"));
  return CheckField("max_grad_norm", config.max_grad_norm(),
                    not_negative(config.max_grad_norm()),
                    "0 (no clipping) or more, and finite");
}

Optimizer::Optimizer(Backend* backend, Communicator* communicator,
                     const ParameterSet* parameters, const ShardMap* shards)
    : training_(backend->training()),
      communicator_(communicator),
      parameters_(parameters),
      shards_(shards),
      owned_(shards->OwnedBy(communicator->rank())) {
  int64_t offset = 0;
  for (const OwnedRange& range : owned_) {
    offsets_.push_back(offset);
    offset += range.num_elements();
  }
}

absl::StatusOr<std::unique_ptr<Optimizer>> Optimizer::Create(
    Backend* backend, Communicator* communicator,
    const ParameterSet* parameters, const ShardMap* shards, Stream& stream) {
  std::unique_ptr<Optimizer> optimizer(
      new Optimizer(backend, communicator, parameters, shards));
  const size_t bytes = shards->NumOwned(communicator->rank()) * kFloatBytes;
  for (std::unique_ptr<Buffer>& state : optimizer->states_) {
    OCTET_ASSIGN_OR_RETURN(state, backend->Allocate(bytes));
    OCTET_RETURN_IF_ERROR(backend->Zero(state->data(), bytes, stream));
  }
  OCTET_ASSIGN_OR_RETURN(optimizer->zeros_,
                         backend->Allocate(kChunk * kFloatBytes));
  OCTET_RETURN_IF_ERROR(
      backend->Zero(optimizer->zeros_->data(), kChunk * kFloatBytes, stream));
  return optimizer;
}

Tensor Optimizer::state(StateKind kind, size_t index) const {
  float* data = static_cast<float*>(states_[static_cast<int>(kind)]->data()) +
                offsets_[index];
  return Tensor(data, DType::kF32, {owned_[index].num_elements()});
}

int64_t Optimizer::size_bytes() const {
  int64_t total = static_cast<int64_t>(zeros_->size_bytes());
  for (const std::unique_ptr<Buffer>& state : states_) {
    total += static_cast<int64_t>(state->size_bytes());
  }
  return total;
}

int64_t Optimizer::MaxChunks() const {
  int64_t most = 0;
  for (int rank = 0; rank < shards_->num_ranks(); ++rank) {
    int64_t chunks = 0;
    for (const OwnedRange& range : shards_->OwnedBy(rank)) {
      chunks += NumChunks(range.num_elements());
    }
    most = std::max(most, chunks);
  }
  return most;
}

// [R, MaxChunks]: each rank's chunks in the order of its ranges.
absl::StatusOr<std::vector<double>> Optimizer::GatherSquares(
    absl::Span<const ConstTensor> gradients, int64_t step_id, Stream& stream) {
  std::vector<double> own;
  for (size_t i = 0; i < owned_.size(); ++i) {
    std::vector<double> squares(NumChunks(owned_[i].num_elements()), 0.0);
    if (gradients[i].data() != nullptr) {
      OCTET_RETURN_IF_ERROR(
          train_ops::SumOfSquares(*training_, gradients[i], &squares, stream));
    }
    own.insert(own.end(), squares.begin(), squares.end());
  }
  own.resize(MaxChunks());
  std::vector<double> all(own.size() * communicator_->size());
  OpInfo op;
  op.operation = "norm";
  op.step_id = step_id;
  OCTET_RETURN_IF_ERROR(communicator_->AllGather(
      own.data(), all.data(), static_cast<int64_t>(own.size() * sizeof(double)),
      op));
  return all;
}

StepOutcome Optimizer::Norm(absl::Span<const double> squares) const {
  StepOutcome outcome;
  const int64_t stride = static_cast<int64_t>(squares.size()) /
                         static_cast<int64_t>(shards_->num_ranks());
  std::vector<int64_t> next(shards_->num_ranks());
  for (size_t rank = 0; rank < next.size(); ++rank) {
    next[rank] = static_cast<int64_t>(rank) * stride;
  }
  double sum = 0;
  for (size_t p = 0; p < parameters_->parameters().size(); ++p) {
    for (const OwnedRange& range : shards_->RangesOf(static_cast<int>(p))) {
      for (int64_t i = NumChunks(range.num_elements()); i > 0; --i) {
        sum += squares[next[range.rank]++];
      }
    }
    // A chunk's double sum of squared floats is finite if they all are.
    if (!std::isfinite(sum) && outcome.not_finite.empty()) {
      outcome.not_finite = parameters_->parameters()[p].name;
    }
  }
  outcome.grad_norm = std::sqrt(sum);
  return outcome;
}

absl::StatusOr<StepOutcome> Optimizer::Step(
    const v1::AdamWConfig& config, absl::Span<const ConstTensor> gradients,
    int64_t step_id, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(const std::vector<double> squares,
                         GatherSquares(gradients, step_id, stream));
  const StepOutcome outcome = Norm(squares);
  if (!outcome.not_finite.empty()) return outcome;
  AdamWParams params = ToParams(config);
  if (config.max_grad_norm() > 0) {
    params.grad_scale = static_cast<float>(
        std::min(1.0, config.max_grad_norm() / (outcome.grad_norm + 1e-6)));
  }
  params.step = ++num_steps_;
  for (size_t i = 0; i < owned_.size(); ++i) {
    OCTET_RETURN_IF_ERROR(Update(params, i, gradients[i], stream));
  }
  return outcome;
}

absl::Status Optimizer::Update(const AdamWParams& params, size_t index,
                               ConstTensor gradient, Stream& stream) {
  AdamWParams own = params;
  if (parameters_->parameters()[owned_[index].parameter].vector) {
    own.weight_decay = 0;
  }
  const Tensor weight = state(StateKind::kWeight, index);
  const Tensor m = state(StateKind::kM, index);
  const Tensor v = state(StateKind::kV, index);
  const int64_t num_elements = owned_[index].num_elements();
  if (gradient.data() != nullptr) {
    return train_ops::AdamW(*training_, own, gradient, weight, m, v, stream);
  }
  for (int64_t begin = 0; begin < num_elements; begin += kChunk) {
    const int64_t count = std::min(kChunk, num_elements - begin);
    OCTET_RETURN_IF_ERROR(train_ops::AdamW(
        *training_, own, ConstTensor(zeros_->data(), DType::kF32, {count}),
        weight.Rows(begin, count), m.Rows(begin, count), v.Rows(begin, count),
        stream));
  }
  return absl::OkStatus();
}

}  // namespace octet
