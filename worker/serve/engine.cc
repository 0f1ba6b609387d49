#include "worker/serve/engine.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/status_macros.h"
#include "kernels/ops.h"

namespace octet {
namespace {

absl::Span<const int32_t> SpanOf(
    const google::protobuf::RepeatedField<int32_t>& ids) {
  return {ids.data(), static_cast<size_t>(ids.size())};
}

SamplingRow ToSamplingRow(const v1::SequenceChunk& chunk) {
  const v1::SampleSpec& spec = chunk.sample();
  SamplingRow row;
  row.temperature = spec.temperature();
  row.top_k = spec.top_k();
  row.top_p = spec.top_p();
  row.min_p = spec.min_p();
  row.repetition_penalty = spec.repetition_penalty();
  row.presence_penalty = spec.presence_penalty();
  row.frequency_penalty = spec.frequency_penalty();
  row.seed = spec.seed();
  row.position = int64_t{chunk.start_position()} + chunk.token_ids_size();
  row.history = SpanOf(spec.history());
  row.num_prompt_tokens = spec.num_prompt_tokens();
  row.banned_ids = SpanOf(spec.banned_ids());
  row.num_logprobs = spec.num_logprobs();
  return row;
}

void CopyLogprobs(const TokenLogprobs& from, v1::PositionLogprobs* to) {
  to->set_logprob(from.logprob);
  for (size_t i = 0; i < from.top_ids.size(); ++i) {
    v1::CandidateLogprob* candidate = to->add_top();
    candidate->set_token_id(from.top_ids[i]);
    candidate->set_logprob(from.top_logprobs[i]);
  }
}

// A chunk of this rank that asked for its routes.
struct RoutedChunk {
  int64_t first_row = 0;
  int64_t num_tokens = 0;
  v1::SequenceResult* result = nullptr;
};

// routes: [L] of [T, K].
void FillRoutes(const std::vector<std::vector<int32_t>>& routes, int64_t rows,
                absl::Span<const RoutedChunk> chunks) {
  for (const RoutedChunk& chunk : chunks) {
    for (const std::vector<int32_t>& layer : routes) {
      const int64_t top_k = static_cast<int64_t>(layer.size()) / rows;
      const auto begin = layer.begin() + chunk.first_row * top_k;
      chunk.result->mutable_routes()->add_layers()->mutable_expert_ids()->Add(
          begin, begin + chunk.num_tokens * top_k);
    }
  }
}

// What a step added to the running seconds.
void FillProfile(const ForwardSeconds& before, const ForwardSeconds& after,
                 absl::Time start, v1::StepProfile* profile) {
  profile->set_total_seconds(absl::ToDoubleSeconds(absl::Now() - start));
  profile->set_attention_seconds(after.attention - before.attention);
  profile->set_router_seconds(after.moe.router - before.moe.router);
  profile->set_dispatch_seconds(after.moe.dispatch - before.moe.dispatch);
  profile->set_expert_seconds(after.moe.expert - before.moe.expert);
  profile->set_combine_seconds(after.moe.combine - before.moe.combine);
  profile->set_head_seconds(after.head - before.head);
}

}  // namespace

Engine::Engine(Backend* backend, Transformer* transformer, int rank,
               PlanLimits limits)
    : backend_(backend),
      transformer_(transformer),
      rank_(rank),
      limits_(std::move(limits)) {}

absl::StatusOr<v1::StepResult> Engine::Run(int64_t step_id,
                                           const v1::ForwardPlan& plan) {
  const absl::Time start = absl::Now();
  const ForwardSeconds before = transformer_->seconds();
  OCTET_RETURN_IF_ERROR(CheckForwardPlan(plan, limits_));
  v1::StepResult result;
  result.set_step_id(step_id);
  std::vector<int64_t> rank_tokens(limits_.rank_blocks.size());
  std::vector<SequenceSlice> slices;
  std::vector<HeadRow> samples, scores;
  std::vector<RoutedChunk> routed;
  for (const v1::SequenceChunk& chunk : plan.chunks()) {
    int64_t& num_tokens = rank_tokens[chunk.home_rank()];
    const int32_t first_row = static_cast<int32_t>(num_tokens);
    num_tokens += chunk.token_ids_size();
    if (chunk.home_rank() != rank_) continue;
    slices.push_back({chunk.start_position(), SpanOf(chunk.token_ids()),
                      SpanOf(chunk.block_ids())});
    if (!chunk.has_sample() && !chunk.has_score() && !chunk.return_routes()) {
      continue;
    }
    v1::SequenceResult* out = result.add_sequences();
    out->set_sequence_id(chunk.sequence_id());
    out->set_token_id(-1);
    if (chunk.return_routes()) {
      routed.push_back({first_row, chunk.token_ids_size(), out});
    }
    if (chunk.has_sample()) {
      samples.push_back(
          {first_row + chunk.token_ids_size() - 1, &chunk, -1, out});
    }
    for (int i = 0; i < chunk.score().target_ids_size(); ++i) {
      if (chunk.score().target_ids(i) < 0) continue;
      scores.push_back({first_row + i, &chunk, i, out});
    }
  }
  std::vector<std::vector<int32_t>> routes;
  OCTET_RETURN_IF_ERROR(transformer_->Forward(
      step_id, slices, rank_tokens, routed.empty() ? nullptr : &routes));
  FillRoutes(routes, rank_tokens[rank_], routed);
  // The head takes a bounded number of rows at a time.
  const size_t limit = static_cast<size_t>(transformer_->max_logit_rows());
  for (size_t i = 0; i < samples.size(); i += limit) {
    OCTET_RETURN_IF_ERROR(
        SampleRows(absl::MakeConstSpan(samples).subspan(i, limit)));
  }
  for (size_t i = 0; i < scores.size(); i += limit) {
    OCTET_RETURN_IF_ERROR(
        ScoreRows(absl::MakeConstSpan(scores).subspan(i, limit)));
  }
  FillProfile(before, transformer_->seconds(), start, result.mutable_profile());
  return result;
}

absl::Status Engine::SampleRows(absl::Span<const HeadRow> rows) {
  std::vector<int32_t> row_ids;
  std::vector<SamplingRow> specs;
  for (const HeadRow& row : rows) {
    row_ids.push_back(row.row);
    specs.push_back(ToSamplingRow(*row.chunk));
  }
  OCTET_ASSIGN_OR_RETURN(const ConstTensor logits,
                         transformer_->Logits(row_ids));
  std::vector<SampledToken> tokens;
  OCTET_RETURN_IF_ERROR(
      ops::Sample(*backend_, logits, specs, &tokens, transformer_->stream()));
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].result->set_token_id(tokens[i].token_id);
    if (specs[i].num_logprobs < 0) continue;
    CopyLogprobs(tokens[i].logprobs, rows[i].result->mutable_sampled());
  }
  return absl::OkStatus();
}

absl::Status Engine::ScoreRows(absl::Span<const HeadRow> rows) {
  std::vector<int32_t> row_ids, targets;
  std::vector<int> num_logprobs;
  for (const HeadRow& row : rows) {
    row_ids.push_back(row.row);
    targets.push_back(row.chunk->score().target_ids(row.target));
    num_logprobs.push_back(std::max(0, row.chunk->score().num_logprobs()));
  }
  OCTET_ASSIGN_OR_RETURN(const ConstTensor logits,
                         transformer_->Logits(row_ids));
  std::vector<TokenLogprobs> scored;
  OCTET_RETURN_IF_ERROR(ops::ScoreTokens(*backend_, logits, targets,
                                         num_logprobs, &scored,
                                         transformer_->stream()));
  for (size_t i = 0; i < rows.size(); ++i) {
    CopyLogprobs(scored[i], rows[i].result->add_scored());
  }
  return absl::OkStatus();
}

}  // namespace octet
