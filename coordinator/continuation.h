// One continuation of a prompt, from sampled ids to text: detokenises as ids
// come, looks for stop strings, and decides when it ends.
// Not thread-safe.
#ifndef OCTET_COORDINATOR_CONTINUATION_H_
#define OCTET_COORDINATOR_CONTINUATION_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "coordinator/request.h"
#include "proto/inference.pb.h"
#include "proto/worker.pb.h"
#include "text/incremental_decoder.h"
#include "text/stop_matcher.h"
#include "text/tokenizer.h"

namespace octet {

// `sampled` on the wire to the worker, with the pieces' texts.
v1::TokenLogprob MakeTokenLogprob(const Tokenizer& tokenizer, int32_t token,
                                  float logprob);
void FillTokenDetail(const Tokenizer& tokenizer, int32_t token,
                     const v1::PositionLogprobs& logprobs,
                     v1::TokenDetail* detail);

class Continuation {
 public:
  // `spec` and `tokenizer` must outlive it.
  static absl::StatusOr<Continuation> Create(const Tokenizer& tokenizer,
                                             const GenerateSpec& spec);

  // Adds what a sampled id brings to `chunk`: ids, log-probabilities, certain
  // text, and the finish reason when it is the last. The text of an id that
  // ends the continuation is not shown.
  void Push(int32_t token, const v1::PositionLogprobs& logprobs,
            v1::GenerateResponse* chunk);

  int32_t num_tokens() const { return num_tokens_; }
  bool finished() const { return finished_; }

 private:
  Continuation(const Tokenizer& tokenizer, const GenerateSpec& spec,
               StopMatcher stop_matcher);
  void Finish(v1::FinishReason reason, v1::GenerateResponse* chunk);

  const Tokenizer* tokenizer_;
  const GenerateSpec* spec_;
  IncrementalDecoder decoder_;
  StopMatcher stop_matcher_;
  int32_t num_tokens_ = 0;
  bool finished_ = false;
};

}  // namespace octet

#endif  // OCTET_COORDINATOR_CONTINUATION_H_
