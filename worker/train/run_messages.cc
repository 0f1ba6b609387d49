#include "worker/train/run_messages.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/status_macros.h"

namespace octet {
namespace {

absl::Status CheckCoefficient(absl::string_view field, float value) {
  if (value >= 0 && std::isfinite(value)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("router_loss.", field, " is ", value,
                   ", expected 0 or more, and finite"));
}

// Fields that the request leaves open are the adapter's; others must agree.
absl::Status ContinueAdapter(const AdapterConfig& adapter,
                             v1::LoraConfig* lora) {
  if (lora->rank() == 0) lora->set_rank(adapter.lora_rank);
  if (lora->rank() != adapter.lora_rank) {
    return absl::InvalidArgumentError(absl::StrCat(
        "lora.rank is ", lora->rank(), ", expected ", adapter.lora_rank,
        ", the rank of the adapter in ", lora->init_from()));
  }
  if (!lora->has_alpha()) lora->set_alpha(adapter.alpha);
  if (lora->alpha() != adapter.alpha) {
    return absl::InvalidArgumentError(absl::StrCat(
        "lora.alpha is ", lora->alpha(), ", expected ", adapter.alpha,
        ", that of the adapter in ", lora->init_from()));
  }
  if (lora->target_modules().empty()) {
    *lora->mutable_target_modules() = {adapter.target_modules.begin(),
                                       adapter.target_modules.end()};
  }
  if (lora->modules_to_save().empty()) {
    *lora->mutable_modules_to_save() = {adapter.modules_to_save.begin(),
                                        adapter.modules_to_save.end()};
  }
  return absl::OkStatus();
}

// The lowest layer with something to train (TrainingPassOptions).
int LowestLayer(const ParameterSet& parameters, const ModelConfig& config) {
  int lowest = config.num_layers;
  for (const Parameter& parameter : parameters.parameters()) {
    if (parameter.weight.kind == WeightKind::kEmbedding) return -1;
    if (parameter.weight.layer >= 0) {
      lowest = std::min(lowest, parameter.weight.layer);
    }
  }
  return lowest;
}

}  // namespace

absl::StatusOr<v1::CreateRunRequest> ResolveRequest(
    const v1::CreateRunRequest& request, const PeftAdapter* adapter) {
  v1::CreateRunRequest out = request;
  if (adapter != nullptr) {
    OCTET_RETURN_IF_ERROR(
        ContinueAdapter(adapter->config(), out.mutable_lora()));
  }
  if (out.has_lora() && !out.lora().has_alpha()) {
    out.mutable_lora()->set_alpha(2.0f * out.lora().rank());
  }
  v1::RouterLossConfig* router = out.mutable_router_loss();
  OCTET_RETURN_IF_ERROR(CheckCoefficient("aux_coef", router->aux_coef()));
  OCTET_RETURN_IF_ERROR(CheckCoefficient("z_coef", router->z_coef()));
  if (router->scope() == v1::ROUTER_LOSS_SCOPE_UNSPECIFIED) {
    router->set_scope(v1::ROUTER_LOSS_SCOPE_BATCH);
  }
  if (!v1::RouterLossScope_IsValid(router->scope())) {
    return absl::InvalidArgumentError(
        absl::StrCat("router_loss.scope is ", static_cast<int>(router->scope()),
                     ", expected BATCH or SLOT"));
  }
  if (out.reduction() == v1::LOSS_REDUCTION_UNSPECIFIED) {
    out.set_reduction(v1::LOSS_REDUCTION_SLOT_MEAN);
  }
  if (!v1::LossReduction_IsValid(out.reduction())) {
    return absl::InvalidArgumentError(
        absl::StrCat("reduction is ", static_cast<int>(out.reduction()),
                     ", expected SLOT_MEAN or TOKEN_MEAN"));
  }
  if (out.max_rank_tokens() < 0 ||
      out.max_rank_tokens() > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_rank_tokens is ", out.max_rank_tokens(),
        ", expected 0 (what fits) to ", std::numeric_limits<int32_t>::max()));
  }
  return out;
}

TrainingPassOptions ToPassOptions(const v1::CreateRunRequest& request,
                                  const ParameterSet& parameters,
                                  const ModelConfig& config) {
  TrainingPassOptions options;
  options.reduction = request.reduction() == v1::LOSS_REDUCTION_TOKEN_MEAN
                          ? LossReduction::kTokenMean
                          : LossReduction::kSlotMean;
  const v1::RouterLossConfig& router = request.router_loss();
  options.router_loss.aux_coef = router.aux_coef();
  options.router_loss.z_coef = router.z_coef();
  options.router_loss.per_layer = router.per_layer();
  options.router_loss.scope = router.scope() == v1::ROUTER_LOSS_SCOPE_SLOT
                                  ? RouterLossScope::kSlot
                                  : RouterLossScope::kBatch;
  options.recompute = request.recompute();
  options.lowest_layer = LowestLayer(parameters, config);
  options.seed = request.seed();
  options.keep_logprobs = true;
  if (request.method() == v1::TRAINING_METHOD_LORA) {
    options.adapter_rank = request.lora().rank();
    options.adapters_drop = request.lora().dropout() > 0;
  }
  return options;
}

absl::StatusOr<TrainingBatch> ToBatch(
    const google::protobuf::RepeatedPtrField<v1::TrainingSlot>& slots,
    const google::protobuf::RepeatedPtrField<v1::SlotRoutes>& routes,
    const ModelConfig& config) {
  if (slots.empty()) {
    return absl::InvalidArgumentError("slots is empty, expected at least one");
  }
  if (!routes.empty() && routes.size() != slots.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "routes has ", routes.size(), " entries, expected none or ",
        slots.size(), ", one per slot"));
  }
  TrainingBatch batch;
  for (int i = 0; i < slots.size(); ++i) {
    TrainingSlotInput slot;
    for (const v1::TrainingSequence& sequence : slots[i].sequences()) {
      slot.documents.push_back({sequence.token_ids(), sequence.labels()});
    }
    if (!routes.empty()) {
      if (routes[i].layers_size() != config.num_layers) {
        return absl::InvalidArgumentError(absl::StrCat(
            "routes of slot ", i, " have ", routes[i].layers_size(),
            " layers, expected ", config.num_layers));
      }
      for (const v1::LayerRoutes& layer : routes[i].layers()) {
        slot.layer_routes.push_back(layer.expert_ids());
      }
    }
    batch.slots.push_back(std::move(slot));
  }
  return batch;
}

AdapterConfig ToAdapterConfig(const v1::LoraConfig& lora,
                              const std::string& base_model) {
  AdapterConfig config;
  config.lora_rank = lora.rank();
  config.alpha = lora.alpha();
  config.dropout = lora.dropout();
  config.base_model = base_model;
  for (const std::string& target : lora.target_modules()) {
    if (target == "all") {
      // PEFT's "all-linear" depends on how a release builds the experts.
      config.target_modules = {"gate",   "k_proj", "o_proj", "q_proj",
                               "v_proj", "w1",     "w2",     "w3"};
      break;
    }
    config.target_modules.push_back(target);
  }
  config.modules_to_save.assign(lora.modules_to_save().begin(),
                                lora.modules_to_save().end());
  return config;
}

v1::ForwardResponse ToResponse(const PassResult& result,
                               const ModelConfig& config,
                               bool return_logprobs) {
  v1::ForwardResponse out;
  out.set_loss(result.loss);
  out.set_aux_loss(result.aux_loss);
  out.set_z_loss(result.z_loss);
  out.set_num_tokens(result.num_tokens);
  out.set_num_labels(result.num_labels);
  auto logprob = result.logprobs.begin();
  for (size_t i = 0; i < result.slot_losses.size(); ++i) {
    v1::SlotResult* slot = out.add_slots();
    slot->set_loss(result.slot_losses[i]);
    slot->set_num_labels(result.slot_labels[i]);
    if (!result.slot_aux_losses.empty()) {
      slot->set_aux_loss(result.slot_aux_losses[i]);
      slot->set_z_loss(result.slot_z_losses[i]);
    }
    if (!return_logprobs) continue;
    slot->mutable_logprobs()->Add(logprob, logprob + result.slot_labels[i]);
    logprob += result.slot_labels[i];
  }
  for (int layer = 0; layer < config.num_layers; ++layer) {
    v1::LayerExpertStats* stats = out.add_layers();
    stats->set_layer(layer);
    const auto first =
        result.expert_tokens.begin() + int64_t{layer} * config.num_experts;
    stats->mutable_expert_tokens()->Add(first, first + config.num_experts);
  }
  out.mutable_layer_aux_losses()->Add(result.layer_aux_losses.begin(),
                                      result.layer_aux_losses.end());
  v1::TrainingSeconds* seconds = out.mutable_seconds();
  seconds->set_total(result.seconds.total);
  seconds->set_attention(result.seconds.attention);
  seconds->set_router(result.seconds.router);
  seconds->set_experts(result.seconds.experts);
  seconds->set_dispatch(result.seconds.dispatch);
  seconds->set_combine(result.seconds.combine);
  seconds->set_waiting(result.seconds.waiting);
  seconds->set_head(result.seconds.head);
  return out;
}

}  // namespace octet
