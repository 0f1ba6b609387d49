// Requests after validation: plain values that the step loop takes as they are.
#ifndef OCTET_COORDINATOR_REQUEST_H_
#define OCTET_COORDINATOR_REQUEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "proto/worker.pb.h"

namespace octet {

struct GenerateSpec {
  std::string request_id;       // never empty
  std::vector<int32_t> prompt;  // ids, at least one
  std::string prompt_text;      // for `echo`
  bool continues_text = true;   // false: the answer begins a text (chat)
  v1::SampleSpec sample;        // without history and banned ids
  int32_t max_new_tokens = 0;   // >= 1, and within the model's context
  int32_t min_new_tokens = 0;
  std::vector<std::string> stop_strings;
  std::vector<int32_t> stop_ids;    // end the text: stop ids and, unless
                                    // ignored, end-of-sequence
  std::vector<int32_t> banned_ids;  // before min_new_tokens
  int32_t num_continuations = 1;
  bool skip_special_tokens = false;
  bool echo = false;
  bool return_routes = false;
  absl::Time deadline = absl::InfiniteFuture();
};

struct ScoreSpec {
  std::vector<int32_t> tokens;  // at least one
  int32_t num_logprobs = 0;
  absl::Time deadline = absl::InfiniteFuture();
};

// The seed of continuation `idx` of a call. The first is sampled as a call with
// n = 1 is.
uint64_t ContinuationSeed(uint64_t seed, int32_t idx);

}  // namespace octet

#endif  // OCTET_COORDINATOR_REQUEST_H_
