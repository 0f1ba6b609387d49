// Plans for tests.
#ifndef OCTET_TESTS_WORKER_SERVE_PLANS_H_
#define OCTET_TESTS_WORKER_SERVE_PLANS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "proto/worker.pb.h"

namespace octet::test {

// A chunk of consecutive tokens; block table as given.
inline v1::SequenceChunk* AddChunk(v1::ForwardPlan* plan, int64_t sequence_id,
                                   int home_rank, int start_position,
                                   absl::Span<const int32_t> token_ids,
                                   absl::Span<const int32_t> block_ids) {
  v1::SequenceChunk* chunk = plan->add_chunks();
  chunk->set_sequence_id(sequence_id);
  chunk->set_home_rank(home_rank);
  chunk->set_start_position(start_position);
  chunk->mutable_token_ids()->Add(token_ids.begin(), token_ids.end());
  chunk->mutable_block_ids()->Add(block_ids.begin(), block_ids.end());
  return chunk;
}

// All filters off. Temperature 0 is greedy.
inline void SetSample(v1::SequenceChunk* chunk, float temperature,
                      uint64_t seed = 0, int num_logprobs = -1) {
  v1::SampleSpec* sample = chunk->mutable_sample();
  sample->set_temperature(temperature);
  sample->set_top_p(1);
  sample->set_repetition_penalty(1);
  sample->set_seed(seed);
  sample->set_num_logprobs(num_logprobs);
}

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_SERVE_PLANS_H_
