// Any bytes as a request: one of Generate, Score and Tokenize. What is accepted
// must be a plan that a worker runs, as refusing one ends the worker's group.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "base/logging.h"
#include "coordinator/request_validation.h"
#include "google/protobuf/stubs/logging.h"
#include "tests/fakes/toy_tokenizer.h"
#include "worker/serve/plan_check.h"

namespace octet {
namespace {

constexpr int kContext = 48;

v1::ModelConfig Model(int vocab_size) {
  v1::ModelConfig model;
  model.set_vocab_size(vocab_size);
  model.set_max_position(kContext);
  model.add_eos_token_ids(2);
  return model;
}

void CheckSentence(const absl::Status& status) {
  OCTET_CHECK(absl::IsInvalidArgument(status) ||
              absl::IsFailedPrecondition(status))
      << status;
  OCTET_CHECK(!status.message().empty());
}

// The plan that computes all `tokens` in one step.
template <typename Fill>
void CheckPlan(const std::vector<int32_t>& tokens, int vocab_size, Fill fill) {
  v1::ForwardPlan plan;
  v1::SequenceChunk* chunk = plan.add_chunks();
  chunk->mutable_token_ids()->Add(tokens.begin(), tokens.end());
  chunk->add_block_ids(0);
  fill(chunk);
  PlanLimits limits;
  limits.vocab_size = vocab_size;
  limits.max_position = kContext;
  limits.max_step_tokens = kContext;
  limits.block_tokens = kContext;
  limits.rank_blocks = {1};
  const absl::Status status = CheckForwardPlan(plan, limits);
  OCTET_CHECK(status.ok()) << status;
}

void CheckGenerate(const v1::GenerateRequest& request,
                   const Tokenizer& tokenizer, int vocab_size) {
  const auto spec =
      ValidateGenerate(request, tokenizer, Model(vocab_size), 1, 2);
  if (!spec.ok()) return CheckSentence(spec.status());
  OCTET_CHECK(!spec->request_id.empty());
  OCTET_CHECK(spec->max_new_tokens >= 1 &&
              spec->prompt.size() + spec->max_new_tokens <= kContext);
  OCTET_CHECK(spec->num_continuations >= 1 &&
              spec->num_continuations <= kMaxContinuations);
  CheckPlan(spec->prompt, vocab_size, [&](v1::SequenceChunk* chunk) {
    *chunk->mutable_sample() = spec->sample;
    if (spec->min_new_tokens > 0) {
      chunk->mutable_sample()->mutable_banned_ids()->Add(
          spec->banned_ids.begin(), spec->banned_ids.end());
    }
    chunk->mutable_sample()->mutable_history()->Add(spec->prompt.begin(),
                                                    spec->prompt.end());
  });
  if (spec->min_new_tokens == 0) return;
  bool one_left = false;
  for (int32_t id = 0; id < vocab_size && !one_left; ++id) {
    one_left =
        std::count(spec->banned_ids.begin(), spec->banned_ids.end(), id) == 0;
  }
  OCTET_CHECK(one_left) << "nothing is left to sample";
}

void CheckScore(const v1::ScoreRequest& request, const Tokenizer& tokenizer,
                int vocab_size) {
  const auto spec = ValidateScore(request, tokenizer, Model(vocab_size));
  if (!spec.ok()) return CheckSentence(spec.status());
  CheckPlan(spec->tokens, vocab_size, [&](v1::SequenceChunk* chunk) {
    v1::ScoreSpec* score = chunk->mutable_score();
    score->mutable_target_ids()->Add(spec->tokens.begin() + 1,
                                     spec->tokens.end());
    score->add_target_ids(-1);
    score->set_num_logprobs(spec->num_logprobs);
  });
}

void CheckTokenize(const v1::TokenizeRequest& request,
                   const Tokenizer& tokenizer) {
  const auto ids = ValidateTokenize(request, tokenizer);
  if (!ids.ok()) return CheckSentence(ids.status());
  for (int32_t id : *ids) {
    OCTET_CHECK(id >= 0 && id < tokenizer.vocab_size()) << id;
  }
}

// The first byte picks the request and the tokenizer; the rest is the message.
void Run(const uint8_t* data, size_t size) {
  static const auto& toy = *test::ToyTokenizer().release();
  static const google::protobuf::LogSilencer no_word_of_each_bad_text;
  static const auto& no_pieces = *Tokenizer::WithoutPieces().release();
  if (size == 0) return;
  const bool has_pieces = (data[0] & 4) == 0;
  const Tokenizer& tokenizer = has_pieces ? toy : no_pieces;
  const int vocab_size = has_pieces ? toy.vocab_size() : 4;
  const int message_size = static_cast<int>(size - 1);
  switch (data[0] & 3) {
    case 0: {
      v1::ScoreRequest request;
      if (!request.ParseFromArray(data + 1, message_size)) return;
      return CheckScore(request, tokenizer, vocab_size);
    }
    case 1: {
      v1::TokenizeRequest request;
      if (!request.ParseFromArray(data + 1, message_size)) return;
      return CheckTokenize(request, tokenizer);
    }
    default: {
      v1::GenerateRequest request;
      if (!request.ParseFromArray(data + 1, message_size)) return;
      return CheckGenerate(request, tokenizer, vocab_size);
    }
  }
}

}  // namespace
}  // namespace octet

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  octet::Run(data, size);
  return 0;
}
