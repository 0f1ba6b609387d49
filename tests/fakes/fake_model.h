// A "model" whose next token is a function of all tokens before it and of the
// seed, so that any mistake in positions, blocks or replay changes the text.
#ifndef OCTET_TESTS_FAKES_FAKE_MODEL_H_
#define OCTET_TESTS_FAKES_FAKE_MODEL_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "proto/worker.pb.h"

namespace octet::test {

struct FakeModel {
  int32_t vocab_size = 0;
  int32_t first_token = 3;  // ids below it are never sampled
  int32_t eos_id = 2;
  int32_t eos_every = 0;  // one token of so many is EOS; 0 = never

  // `prefix_hash` is PrefixHash of all tokens before the new one.
  int32_t Sample(uint64_t prefix_hash, const v1::SampleSpec& spec) const;
  // Log-probability of `token` after the prefix.
  float Logprob(uint64_t prefix_hash, int32_t token) const;
  // That of `token` and of `num_logprobs` others.
  void FillLogprobs(uint64_t prefix_hash, int32_t token, int32_t num_logprobs,
                    v1::PositionLogprobs* logprobs) const;

  // The oracle: the continuation of `prompt`, up to max_new ids or EOS.
  std::vector<int32_t> Continue(absl::Span<const int32_t> prompt,
                                int32_t max_new, uint64_t seed,
                                float temperature) const;
};

}  // namespace octet::test

#endif  // OCTET_TESTS_FAKES_FAKE_MODEL_H_
