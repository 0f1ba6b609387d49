#include "worker/train/memory_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace octet {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);
// What GradientReducer and ParameterExchange move at a time.
constexpr int64_t kBucketElements = 8 << 20;
constexpr int64_t kFewestTokens = 64;

std::string GiB(int64_t bytes) {
  return absl::StrFormat("%.2f GiB", static_cast<double>(bytes) / (1 << 30));
}

bool IsHeld(const RankModel& model, const WeightId& weight) {
  return weight.expert_id < 0 ||
         model.placement->LocalIndex(model.communicator->rank(),
                                     weight.expert_id) >= 0;
}

}  // namespace

v1::RankMemoryPlan PlanMemory(const RankModel& model,
                              const ParameterSet& parameters,
                              const ShardMap& shards, const MemoryNeeds& needs,
                              const RankMemory& memory, int64_t rank_tokens) {
  const int rank = model.communicator->rank();
  const int64_t owned = shards.NumOwned(rank);
  int64_t held = 0, largest = 0, shared = 0;
  for (const GradientSource& source : parameters.sources()) {
    if (!IsHeld(model, source.weight)) continue;
    held += source.num_elements;
    largest = std::max(largest, source.num_elements);
    if (HoldersOf(source.weight, *model.placement).size() > 1) {
      shared += source.num_elements;
    }
  }
  int64_t adapters = 0;
  for (const LoraTarget& target : parameters.lora_targets()) {
    if (IsHeld(model, target.weight)) {
      adapters += (target.n + target.k) * target.stacked_rank();
    }
  }
  v1::RankMemoryPlan plan;
  plan.set_rank(rank);
  plan.set_weight_bytes(model.weights->num_bytes());
  plan.set_adapter_bytes(adapters *
                         static_cast<int64_t>(SizeOf(model.weights->dtype)));
  // What travels: a bucket out and one in, and the whole rows that come of it.
  const int64_t bucket =
      shared == 0 ? 0 : std::min(shared, kBucketElements + largest);
  const int64_t waiting = shared == 0 ? 0 : owned;
  plan.set_gradient_bytes((held + waiting + 3 * bucket) * kFloatBytes);
  plan.set_optimizer_bytes(3 * owned * kFloatBytes);
  if (needs.background_saves) plan.set_snapshot_bytes(plan.optimizer_bytes());
  const ModelConfig& config = *model.config;
  plan.set_activation_bytes(
      TrainingPass::ActivationBytes(config, model.weights->dtype, needs.pass,
                                    rank_tokens, rank_tokens * config.top_k));
  plan.set_kv_cache_bytes(memory.kv_cache_bytes);
  plan.set_available_bytes(memory.available_bytes);
  if (memory.host_available_bytes.has_value()) {
    plan.set_host_available_bytes(*memory.host_available_bytes);
  }
  return plan;
}

int64_t NewBytes(const v1::RankMemoryPlan& plan) {
  const int64_t snapshot =
      plan.has_host_available_bytes() ? 0 : plan.snapshot_bytes();
  return plan.adapter_bytes() + plan.gradient_bytes() + plan.optimizer_bytes() +
         plan.activation_bytes() + snapshot;
}

absl::Status CheckFits(const v1::RankMemoryPlan& plan, int64_t rank_tokens) {
  if (plan.host_available_bytes() > 0 &&
      plan.snapshot_bytes() > plan.host_available_bytes()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "rank ", plan.rank(), " needs ", GiB(plan.snapshot_bytes()),
        " of its host for the copy of background_saves, expected at most the ",
        GiB(plan.host_available_bytes()), " that are left"));
  }
  if (plan.available_bytes() <= 0 || NewBytes(plan) <= plan.available_bytes()) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "rank ", plan.rank(), " needs ", GiB(NewBytes(plan)), " to train with ",
      rank_tokens, " tokens in a call (adapters ", GiB(plan.adapter_bytes()),
      ", gradients ", GiB(plan.gradient_bytes()), ", optimizer ",
      GiB(plan.optimizer_bytes()), ", activations ",
      GiB(plan.activation_bytes()),
      plan.snapshot_bytes() > 0 && !plan.has_host_available_bytes()
          ? absl::StrCat(", copy of background_saves ",
                         GiB(plan.snapshot_bytes()))
          : "",
      "), expected at most the ", GiB(plan.available_bytes()),
      " that are left"));
}

absl::StatusOr<int64_t> TokensThatFit(const RankModel& model,
                                      const ParameterSet& parameters,
                                      const ShardMap& shards,
                                      const MemoryNeeds& needs,
                                      const RankMemory& memory, int64_t limit) {
  const auto fits = [&](int64_t tokens) {
    return CheckFits(
        PlanMemory(model, parameters, shards, needs, memory, tokens), tokens);
  };
  int64_t tokens = std::min(kFewestTokens, limit);
  const absl::Status fewest = fits(tokens);
  if (!fewest.ok()) return fewest;
  while (tokens < limit && fits(std::min(2 * tokens, limit)).ok()) {
    tokens = std::min(2 * tokens, limit);
  }
  return tokens;
}

}  // namespace octet
