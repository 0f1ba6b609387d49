// What a worker group answers must fit what it was asked.
#ifndef OCTET_COORDINATOR_STEP_RESULT_CHECK_H_
#define OCTET_COORDINATOR_STEP_RESULT_CHECK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "proto/worker.pb.h"

namespace octet {

// `plan` is the one in flight, nullptr when there is none. INTERNAL: another
// step, a sequence that is missing, a token outside [0, vocab_size), or another
// number of scores than was asked for.
absl::Status CheckStepResult(const v1::Plan* plan, const v1::StepResult& result,
                             int32_t vocab_size);

}  // namespace octet

#endif  // OCTET_COORDINATOR_STEP_RESULT_CHECK_H_
