#include "coordinator/step_result_check.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace octet {
namespace {

int32_t NumTargets(const v1::ScoreSpec& score) {
  const auto& ids = score.target_ids();
  return static_cast<int32_t>(ids.size() -
                              std::count(ids.begin(), ids.end(), -1));
}

absl::Status CheckRoutes(const v1::SlotRoutes& routes, int64_t num_tokens,
                         const v1::ModelConfig& model) {
  if (routes.layers_size() != model.num_layers()) {
    return absl::InternalError(
        absl::StrCat("the group returned routes of ", routes.layers_size(),
                     " layers, expected ", model.num_layers()));
  }
  for (const v1::LayerRoutes& layer : routes.layers()) {
    if (layer.expert_ids_size() != num_tokens * model.top_k()) {
      return absl::InternalError(absl::StrCat(
          "the group returned ", layer.expert_ids_size(), " routes of ",
          num_tokens, " tokens, expected ", num_tokens * model.top_k()));
    }
  }
  return absl::OkStatus();
}

}  // namespace

bool WantsResult(const v1::SequenceChunk& chunk) {
  return chunk.has_sample() || chunk.has_score() || chunk.return_routes();
}

absl::Status CheckStepResult(const v1::Plan* plan, const v1::StepResult& result,
                             const v1::ModelConfig& model) {
  if (plan == nullptr || result.step_id() != plan->step_id()) {
    return absl::InternalError(absl::StrCat(
        "the group answered step ", result.step_id(), ", expected ",
        plan != nullptr ? absl::StrCat(plan->step_id()) : "none"));
  }
  absl::flat_hash_map<int64_t, const v1::SequenceResult*> by_id;
  for (const v1::SequenceResult& sequence : result.sequences()) {
    by_id[sequence.sequence_id()] = &sequence;
  }
  for (const v1::SequenceChunk& sent : plan->forward().chunks()) {
    if (!WantsResult(sent)) continue;
    const auto it = by_id.find(sent.sequence_id());
    if (it == by_id.end()) {
      return absl::InternalError(
          absl::StrCat("the group's answer to step ", result.step_id(),
                       " lacks sequence ", sent.sequence_id()));
    }
    const int32_t token = it->second->token_id();
    if (sent.has_sample() && (token < 0 || token >= model.vocab_size())) {
      return absl::InternalError(absl::StrCat("the group sampled token ", token,
                                              ", expected 0 to ",
                                              model.vocab_size() - 1));
    }
    if (sent.has_score() &&
        it->second->scored_size() != NumTargets(sent.score())) {
      return absl::InternalError(
          absl::StrCat("the group scored ", it->second->scored_size(),
                       " tokens, expected ", NumTargets(sent.score())));
    }
    if (sent.return_routes()) {
      OCTET_RETURN_IF_ERROR(
          CheckRoutes(it->second->routes(), sent.token_ids_size(), model));
    }
  }
  return absl::OkStatus();
}

}  // namespace octet
