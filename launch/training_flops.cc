#include "launch/training_flops.h"

#include "base/status_macros.h"
#include "worker/train/parameters.h"

namespace octet {
namespace {

// Of one product with every element of the parameter.
double ProductFlops(const Parameter& parameter, const ModelConfig& config,
                    double tokens, double labels) {
  const WeightKind kind = parameter.weight.kind;
  if (parameter.vector || kind == WeightKind::kEmbedding) return 0;
  double rows = kind == WeightKind::kLmHead ? labels : tokens;
  if (parameter.weight.expert_id >= 0) {
    rows *= static_cast<double>(config.top_k) / config.num_experts;
  }
  return 2 * rows * static_cast<double>(parameter.num_elements());
}

}  // namespace

absl::StatusOr<TrainingFlops> CountTrainingFlops(
    const ModelConfig& config, const v1::CreateRunRequest& run,
    int64_t num_slots, int64_t sequence_length) {
  OCTET_ASSIGN_OR_RETURN(const ParameterSet trained,
                         ParameterSet::Create(config, run));
  const auto slots = static_cast<double>(num_slots);
  const auto length = static_cast<double>(sequence_length);
  const double tokens = slots * length;
  const double labels = slots * (length - 1);
  double layers = 0, head = 0;
  const auto count = [&](const Parameter& parameter) {
    (parameter.weight.layer < 0 ? head : layers) +=
        ProductFlops(parameter, config, tokens, labels);
  };
  for (const Parameter& parameter : ModelParameters(config)) count(parameter);
  TrainingFlops flops;
  for (const Parameter& parameter : trained.parameters()) {
    if (parameter.weight.part != WeightPart::kBase) count(parameter);
    flops.backward_weights += ProductFlops(parameter, config, tokens, labels);
  }
  const double attention = config.num_layers * slots * 4.0 *
                           static_cast<double>(config.q_dim()) * length *
                           (length + 1) / 2;
  flops.forward = layers + head + attention;
  flops.backward_inputs = layers + head + 2 * attention;
  flops.recompute = run.recompute() ? layers + attention : 0;
  return flops;
}

}  // namespace octet
