#include "coordinator/continuation.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/status_macros.h"

namespace octet {
namespace {

// Plain text where there is some, else the piece's name, as "<0x0A>".
std::string PieceText(const Tokenizer& tokenizer, int32_t token) {
  if (token < 0 || token >= tokenizer.vocab_size()) return "";
  const absl::string_view surface = tokenizer.Surface(token);
  if (!surface.empty()) return std::string(surface);
  return std::string(*tokenizer.IdToPiece(token));
}

}  // namespace

v1::TokenLogprob MakeTokenLogprob(const Tokenizer& tokenizer, int32_t token,
                                  float logprob) {
  v1::TokenLogprob result;
  result.set_token_id(token);
  result.set_logprob(logprob);
  result.set_text(PieceText(tokenizer, token));
  return result;
}

void FillTokenDetail(const Tokenizer& tokenizer, int32_t token,
                     const v1::PositionLogprobs& logprobs,
                     v1::TokenDetail* detail) {
  *detail->mutable_sampled() =
      MakeTokenLogprob(tokenizer, token, logprobs.logprob());
  for (const v1::CandidateLogprob& candidate : logprobs.top()) {
    *detail->add_top() =
        MakeTokenLogprob(tokenizer, candidate.token_id(), candidate.logprob());
  }
}

absl::StatusOr<Continuation> Continuation::Create(const Tokenizer& tokenizer,
                                                  const GenerateSpec& spec) {
  OCTET_ASSIGN_OR_RETURN(StopMatcher stop_matcher,
                         StopMatcher::Create(spec.stop_strings));
  return Continuation(tokenizer, spec, std::move(stop_matcher));
}

Continuation::Continuation(const Tokenizer& tokenizer, const GenerateSpec& spec,
                           StopMatcher stop_matcher)
    : tokenizer_(&tokenizer),
      spec_(&spec),
      decoder_(tokenizer, {.skip_special = spec.skip_special_tokens,
                           .at_start = !spec.continues_text}),
      stop_matcher_(std::move(stop_matcher)) {}

void Continuation::Push(int32_t token, const v1::PositionLogprobs& logprobs,
                        v1::GenerateResponse* chunk) {
  ++num_tokens_;
  chunk->add_token_ids(token);
  if (spec_->sample.num_logprobs() >= 0) {
    FillTokenDetail(*tokenizer_, token, logprobs, chunk->add_logprobs());
  }
  const auto& stop_ids = spec_->stop_ids;
  if (std::find(stop_ids.begin(), stop_ids.end(), token) != stop_ids.end()) {
    Finish(v1::FINISH_REASON_STOP, chunk);
    return;
  }
  // A model may have more ids than the tokenizer has pieces; those have no
  // text.
  const absl::StatusOr<std::string> text = decoder_.Push(token);
  if (text.ok()) chunk->set_text(stop_matcher_.Push(*text));
  if (stop_matcher_.matched().has_value()) {
    Finish(v1::FINISH_REASON_STOP, chunk);
  } else if (num_tokens_ >= spec_->max_new_tokens) {
    Finish(v1::FINISH_REASON_LENGTH, chunk);
  }
}

void Continuation::Finish(v1::FinishReason reason,
                          v1::GenerateResponse* chunk) {
  finished_ = true;
  chunk->mutable_text()->append(stop_matcher_.Push(decoder_.Finish()));
  if (stop_matcher_.matched().has_value()) {
    chunk->set_stop_string(spec_->stop_strings[*stop_matcher_.matched()]);
    reason = v1::FINISH_REASON_STOP;
  } else {
    chunk->mutable_text()->append(stop_matcher_.Finish());
  }
  chunk->set_finish_reason(reason);
}

}  // namespace octet
