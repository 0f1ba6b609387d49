#include "worker/serve/plan_check.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <tuple>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace octet {
namespace {

using Ids = google::protobuf::RepeatedField<int32_t>;

// "expected" follows in every message.
absl::Status Bad(absl::string_view field, absl::string_view found,
                 absl::string_view expected) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", found, ", expected ", expected));
}

absl::Status CheckIds(absl::string_view field, const Ids& ids, int64_t low,
                      int64_t limit) {
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] >= low && ids[i] < limit) continue;
    return Bad(absl::StrCat(field, "[", i, "]"), absl::StrCat(ids[i]),
               absl::StrCat("an id in [", low, ", ", limit - 1, "]"));
  }
  return absl::OkStatus();
}

absl::Status CheckFloat(absl::string_view field, float value, float low,
                        float high, absl::string_view expected) {
  if (std::isfinite(value) && value >= low && value <= high) {
    return absl::OkStatus();
  }
  return Bad(field, absl::StrCat(value), expected);
}

absl::Status CheckLogprobs(absl::string_view field, int num_logprobs,
                           int64_t vocab_size) {
  if (num_logprobs >= -1 && num_logprobs <= vocab_size) {
    return absl::OkStatus();
  }
  return Bad(field, absl::StrCat(num_logprobs),
             absl::StrCat("a number in [-1, ", vocab_size, "]"));
}

absl::Status CheckPlace(const v1::SequenceChunk& chunk,
                        const PlanLimits& limits) {
  const int num_ranks = static_cast<int>(limits.rank_blocks.size());
  if (chunk.home_rank() < 0 || chunk.home_rank() >= num_ranks) {
    return Bad("home_rank", absl::StrCat(chunk.home_rank()),
               absl::StrCat("a rank in [0, ", num_ranks - 1, "]"));
  }
  if (chunk.token_ids().empty()) {
    return Bad("token_ids", "empty", "at least one token");
  }
  const int64_t end = int64_t{chunk.start_position()} + chunk.token_ids_size();
  if (chunk.start_position() < 0 || end > limits.max_position) {
    return Bad("start_position", absl::StrCat(chunk.start_position()),
               absl::StrCat("one that keeps its ", chunk.token_ids_size(),
                            " tokens in [0, ", limits.max_position, ")"));
  }
  const int64_t needed = (end + limits.block_tokens - 1) / limits.block_tokens;
  if (chunk.block_ids_size() < needed) {
    return Bad("block_ids", absl::StrCat(chunk.block_ids_size(), " long"),
               absl::StrCat(needed, " blocks of ", limits.block_tokens,
                            " tokens for positions up to ", end - 1));
  }
  return absl::OkStatus();
}

absl::Status CheckSample(const v1::SampleSpec& spec, int64_t vocab_size) {
  constexpr float kAny = std::numeric_limits<float>::max();
  constexpr float kAboveZero = std::numeric_limits<float>::denorm_min();
  OCTET_RETURN_IF_ERROR(CheckFloat("sample.temperature", spec.temperature(), 0,
                                   kAny, "a number of at least 0"));
  if (spec.top_k() < 0) {
    return Bad("sample.top_k", absl::StrCat(spec.top_k()), "at least 0");
  }
  OCTET_RETURN_IF_ERROR(CheckFloat("sample.top_p", spec.top_p(), kAboveZero, 1,
                                   "a number in (0, 1]"));
  OCTET_RETURN_IF_ERROR(
      CheckFloat("sample.min_p", spec.min_p(), 0, 1, "a number in [0, 1]"));
  OCTET_RETURN_IF_ERROR(CheckFloat("sample.repetition_penalty",
                                   spec.repetition_penalty(), kAboveZero, kAny,
                                   "a number above 0"));
  OCTET_RETURN_IF_ERROR(CheckFloat("sample.presence_penalty",
                                   spec.presence_penalty(), -kAny, kAny,
                                   "a finite number"));
  OCTET_RETURN_IF_ERROR(CheckFloat("sample.frequency_penalty",
                                   spec.frequency_penalty(), -kAny, kAny,
                                   "a finite number"));
  OCTET_RETURN_IF_ERROR(
      CheckLogprobs("sample.num_logprobs", spec.num_logprobs(), vocab_size));
  OCTET_RETURN_IF_ERROR(
      CheckIds("sample.banned_ids", spec.banned_ids(), 0, vocab_size));
  OCTET_RETURN_IF_ERROR(
      CheckIds("sample.history", spec.history(), 0, vocab_size));
  if (spec.num_prompt_tokens() < 0 ||
      (!spec.history().empty() &&
       spec.num_prompt_tokens() > spec.history_size())) {
    return Bad("sample.num_prompt_tokens",
               absl::StrCat(spec.num_prompt_tokens()),
               absl::StrCat("a number in [0, ", spec.history_size(), "]"));
  }
  return absl::OkStatus();
}

absl::Status CheckChunk(const v1::SequenceChunk& chunk,
                        const PlanLimits& limits) {
  OCTET_RETURN_IF_ERROR(CheckPlace(chunk, limits));
  OCTET_RETURN_IF_ERROR(
      CheckIds("token_ids", chunk.token_ids(), 0, limits.vocab_size));
  OCTET_RETURN_IF_ERROR(CheckIds("block_ids", chunk.block_ids(), 0,
                                 limits.rank_blocks[chunk.home_rank()]));
  if (chunk.has_sample()) {
    OCTET_RETURN_IF_ERROR(CheckSample(chunk.sample(), limits.vocab_size));
  }
  if (!chunk.has_score()) return absl::OkStatus();
  if (chunk.score().target_ids_size() != chunk.token_ids_size()) {
    return Bad(
        "score.target_ids",
        absl::StrCat(chunk.score().target_ids_size(), " long"),
        absl::StrCat("one for each of ", chunk.token_ids_size(), " tokens"));
  }
  OCTET_RETURN_IF_ERROR(CheckLogprobs(
      "score.num_logprobs", chunk.score().num_logprobs(), limits.vocab_size));
  return CheckIds("score.target_ids", chunk.score().target_ids(), -1,
                  limits.vocab_size);
}

// No sequence twice, no rank with too many tokens.
absl::Status CheckTotals(const v1::ForwardPlan& plan,
                         const PlanLimits& limits) {
  absl::flat_hash_set<int64_t> sequences;
  std::vector<int64_t> rank_tokens(limits.rank_blocks.size());
  for (int i = 0; i < plan.chunks_size(); ++i) {
    const v1::SequenceChunk& chunk = plan.chunks(i);
    if (!sequences.insert(chunk.sequence_id()).second) {
      return absl::InvalidArgumentError(absl::StrCat(
          "plan: chunk ", i, " continues sequence ", chunk.sequence_id(),
          " again, expected each sequence once per step"));
    }
    rank_tokens[chunk.home_rank()] += chunk.token_ids_size();
  }
  for (size_t rank = 0; rank < rank_tokens.size(); ++rank) {
    if (rank_tokens[rank] <= limits.max_step_tokens) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("plan: rank ", rank, " has ", rank_tokens[rank],
                     " tokens, expected at most ", limits.max_step_tokens));
  }
  return absl::OkStatus();
}

// No place of a cache is written twice.
absl::Status CheckWrites(const v1::ForwardPlan& plan,
                         const PlanLimits& limits) {
  struct Write {
    int rank;
    int64_t slot;
    int chunk;
    bool operator<(const Write& other) const {
      return std::tie(rank, slot) < std::tie(other.rank, other.slot);
    }
  };
  std::vector<Write> writes;
  for (int i = 0; i < plan.chunks_size(); ++i) {
    const v1::SequenceChunk& chunk = plan.chunks(i);
    for (int t = 0; t < chunk.token_ids_size(); ++t) {
      const int position = chunk.start_position() + t;
      const int64_t block = chunk.block_ids(position / limits.block_tokens);
      writes.push_back(
          {chunk.home_rank(),
           block * limits.block_tokens + position % limits.block_tokens, i});
    }
  }
  std::sort(writes.begin(), writes.end());
  for (size_t i = 1; i < writes.size(); ++i) {
    if (writes[i - 1] < writes[i]) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "plan: chunks ", std::min(writes[i - 1].chunk, writes[i].chunk),
        " and ", std::max(writes[i - 1].chunk, writes[i].chunk),
        " both write place ", writes[i].slot % limits.block_tokens,
        " of block ", writes[i].slot / limits.block_tokens, " on rank ",
        writes[i].rank, ", expected one writer"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckForwardPlan(const v1::ForwardPlan& plan,
                              const PlanLimits& limits) {
  for (int i = 0; i < plan.chunks_size(); ++i) {
    const absl::Status status = CheckChunk(plan.chunks(i), limits);
    if (!status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("plan: chunk ", i, " (sequence ",
                       plan.chunks(i).sequence_id(), "): ", status.message()));
    }
  }
  OCTET_RETURN_IF_ERROR(CheckTotals(plan, limits));
  return CheckWrites(plan, limits);
}

}  // namespace octet
