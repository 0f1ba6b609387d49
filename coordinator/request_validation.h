// From a request on the wire to a spec: every field is checked here, once.
// An error is INVALID_ARGUMENT in one sentence that names the field, what was
// found and what was expected. Pure; thread-safe.
// Tested in tests/coordinator/request_validation_test.cc.
#ifndef OCTET_COORDINATOR_REQUEST_VALIDATION_H_
#define OCTET_COORDINATOR_REQUEST_VALIDATION_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/request.h"
#include "proto/inference.pb.h"
#include "proto/model.pb.h"
#include "text/tokenizer.h"

namespace octet {

// Limits of one request.
inline constexpr int32_t kMaxContinuations = 64;
inline constexpr int32_t kMaxLogprobs = 20;
// Logits stay finite within these.
inline constexpr float kMinRepetitionPenalty = 0.001f;
inline constexpr float kMaxRepetitionPenalty = 1000.0f;
inline constexpr int32_t kMaxStopStrings = 16;
inline constexpr int32_t kMaxStopStringBytes = 256;
inline constexpr int32_t kMaxStopTokenIds = 64;
inline constexpr int32_t kMaxRequestIdBytes = 128;
inline constexpr int32_t kDefaultMaxNewTokens = 256;
// Of a continuation: two bytes each, they still fit the largest message.
inline constexpr int64_t kMaxRouteIds = int64_t{1} << 25;

// `random_seed` stands in for an absent sampling.seed, `random_id` for an empty
// request_id. The deadline is left for the caller.
absl::StatusOr<GenerateSpec> ValidateGenerate(
    const v1::GenerateRequest& request, const Tokenizer& tokenizer,
    const v1::ModelConfig& model, uint64_t random_seed, uint64_t random_id);

absl::StatusOr<ScoreSpec> ValidateScore(const v1::ScoreRequest& request,
                                        const Tokenizer& tokenizer,
                                        const v1::ModelConfig& model);

// The ids of a text or a chat. No model is needed.
absl::StatusOr<std::vector<int32_t>> ValidateTokenize(
    const v1::TokenizeRequest& request, const Tokenizer& tokenizer);

}  // namespace octet

#endif  // OCTET_COORDINATOR_REQUEST_VALIDATION_H_
