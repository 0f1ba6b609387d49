// What a worker group answers must fit what it was asked.
#ifndef OCTET_COORDINATOR_STEP_RESULT_CHECK_H_
#define OCTET_COORDINATOR_STEP_RESULT_CHECK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "proto/worker.pb.h"

namespace octet {

// Whether the group answers a chunk with a SequenceResult.
bool WantsResult(const v1::SequenceChunk& chunk);

// `plan` is the one in flight, nullptr when there is none. INTERNAL: another
// step, a sequence that is missing, a token outside [0, vocab_size), or another
// number of scores or of routes than was asked for.
absl::Status CheckStepResult(const v1::Plan* plan, const v1::StepResult& result,
                             const v1::ModelConfig& model);

}  // namespace octet

#endif  // OCTET_COORDINATOR_STEP_RESULT_CHECK_H_
