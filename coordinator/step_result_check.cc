#include "coordinator/step_result_check.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"

namespace octet {
namespace {

int32_t NumTargets(const v1::ScoreSpec& score) {
  const auto& ids = score.target_ids();
  return static_cast<int32_t>(ids.size() -
                              std::count(ids.begin(), ids.end(), -1));
}

}  // namespace

absl::Status CheckStepResult(const v1::Plan* plan, const v1::StepResult& result,
                             int32_t vocab_size) {
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
    if (!sent.has_sample() && !sent.has_score()) continue;
    const auto it = by_id.find(sent.sequence_id());
    if (it == by_id.end()) {
      return absl::InternalError(
          absl::StrCat("the group's answer to step ", result.step_id(),
                       " lacks sequence ", sent.sequence_id()));
    }
    const int32_t token = it->second->token_id();
    if (sent.has_sample() && (token < 0 || token >= vocab_size)) {
      return absl::InternalError(absl::StrCat("the group sampled token ", token,
                                              ", expected 0 to ",
                                              vocab_size - 1));
    }
    if (sent.has_score() &&
        it->second->scored_size() != NumTargets(sent.score())) {
      return absl::InternalError(
          absl::StrCat("the group scored ", it->second->scored_size(),
                       " tokens, expected ", NumTargets(sent.score())));
    }
  }
  return absl::OkStatus();
}

}  // namespace octet
