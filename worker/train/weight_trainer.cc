#include "worker/train/weight_trainer.h"

#include <algorithm>
#include <utility>

#include "absl/types/span.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "worker/comm/group_messages.h"
#include "worker/train/file_op.h"
#include "worker/train/initial_values.h"
#include "worker/train/refusal.h"

namespace octet {
namespace {

constexpr int64_t kPieceElements = 1 << 20;

}  // namespace

WeightTrainer::WeightTrainer(const RankModel& model, ParameterSet parameters,
                             std::unique_ptr<Stream> stream)
    : model_(model),
      parameters_(std::move(parameters)),
      stream_(std::move(stream)),
      shards_(parameters_, *model.placement),
      pool_(model.backend),
      store_(model.backend, &parameters_, model.placement,
             model.communicator->rank(), &pool_),
      reducer_(model.backend, model.communicator, &parameters_, &shards_,
               &pool_),
      exchange_(model.backend, model.communicator, &parameters_, &shards_),
      live_(model.backend, *model.config, &parameters_, model.weights) {}

absl::StatusOr<std::unique_ptr<WeightTrainer>> WeightTrainer::Create(
    const RankModel& model, ParameterSet parameters,
    const v1::CreateRunRequest& request, const PeftAdapter* adapter,
    int64_t step_id) {
  absl::StatusOr<std::unique_ptr<Stream>> stream = model.backend->NewStream();
  if (!stream.ok()) return EndsGroup(stream.status());
  std::unique_ptr<WeightTrainer> trainer(
      new WeightTrainer(model, std::move(parameters), *std::move(stream)));
  LiveWeights::Adapters adapters;
  const auto prepare = [&]() -> absl::Status {
    OCTET_ASSIGN_OR_RETURN(
        trainer->optimizer_,
        Optimizer::Create(model.backend, model.communicator,
                          &trainer->parameters_, &trainer->shards_,
                          *trainer->stream_));
    OCTET_ASSIGN_OR_RETURN(
        adapters, trainer->live_.MakeAdapters(LoraScale(request.lora()),
                                              request.lora().dropout()));
    return trainer->FillWeights(request, adapter);
  };
  OCTET_RETURN_IF_ERROR(AgreeOnStatus(*model.communicator, prepare(),
                                      FileOp("create run", step_id)));
  trainer->live_.Attach(std::move(adapters));
  OCTET_RETURN_IF_ERROR(EndsGroup(trainer->Publish(step_id)));
  return trainer;
}

// The master weights of what this rank owns.
absl::Status WeightTrainer::FillWeights(const v1::CreateRunRequest& request,
                                        const PeftAdapter* adapter) {
  std::vector<float> values;
  const absl::Span<const OwnedRange> owned =
      shards_.OwnedBy(model_.communicator->rank());
  for (size_t i = 0; i < owned.size(); ++i) {
    const Parameter& parameter = parameters_.parameters()[owned[i].parameter];
    const Tensor weight = optimizer_->state(StateKind::kWeight, i);
    for (int64_t at = 0; at < owned[i].num_elements(); at += kPieceElements) {
      const int64_t count =
          std::min(kPieceElements, owned[i].num_elements() - at);
      const int64_t begin = owned[i].begin + at;
      values.resize(count);
      if (adapter != nullptr) {
        OCTET_RETURN_IF_ERROR(
            adapter->Read(parameter.name, begin, absl::MakeSpan(values)));
      } else if (parameter.weight.part == WeightPart::kBase) {
        OCTET_RETURN_IF_ERROR(live_.Read(parameter, begin, begin + count,
                                         values.data(), *stream_));
      } else {
        FillFreshAdapter(parameter, request.seed(), begin,
                         absl::MakeSpan(values));
      }
      const Tensor piece = weight.Rows(at, count);
      OCTET_RETURN_IF_ERROR(model_.backend->CopyToDevice(
          piece.data(), values.data(), piece.num_bytes(), *stream_));
      OCTET_RETURN_IF_ERROR(model_.backend->Synchronize(*stream_));
    }
  }
  return absl::OkStatus();
}

GradientSink& WeightTrainer::Begin(const SlotPlan& plan) {
  OCTET_CHECK(plan.first_slot == pending_slots_);
  plan_ = plan;
  store_.Begin(plan);
  return store_;
}

absl::Status WeightTrainer::Finish(int64_t step_id) {
  OCTET_RETURN_IF_ERROR(store_.Finish(*stream_));
  OCTET_RETURN_IF_ERROR(reducer_.Reduce(store_, plan_, step_id, *stream_));
  pending_slots_ = plan_.end_slot();
  return model_.backend->Synchronize(*stream_);
}

absl::StatusOr<StepOutcome> WeightTrainer::Step(const v1::AdamWConfig& config,
                                                int64_t step_id) {
  OCTET_ASSIGN_OR_RETURN(const std::vector<ConstTensor> gradients,
                         reducer_.Sum(*stream_));
  OCTET_ASSIGN_OR_RETURN(
      StepOutcome outcome,
      optimizer_->Step(config, gradients, step_id, *stream_));
  ZeroGrad();
  if (outcome.not_finite.empty()) OCTET_RETURN_IF_ERROR(Publish(step_id));
  return outcome;
}

void WeightTrainer::ZeroGrad() {
  reducer_.Clear();
  pending_slots_ = 0;
}

absl::Status WeightTrainer::Publish(int64_t step_id) {
  OCTET_RETURN_IF_ERROR(exchange_.ForEach(
      *optimizer_,
      [&](int rank, int parameter) { return shards_.Holds(rank, parameter); },
      [&](int parameter, int64_t row, ConstTensor values) {
        return live_.Write(parameters_.parameters()[parameter], row, values,
                           *stream_);
      },
      step_id, *stream_));
  return model_.backend->Synchronize(*stream_);
}

}  // namespace octet
