// Backend::Sample and Backend::ScoreTokens on the CPU.
//
// A row costs a few passes over V whatever the filters are: the order that they
// need is made piece by piece (descending_tokens.h). Results are equal bits for
// every instruction set and number of threads.
#ifndef OCTET_KERNELS_CPU_SAMPLING_H_
#define OCTET_KERNELS_CPU_SAMPLING_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cpu/context.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// INTERNAL names a row whose logits hold NaN or plus infinity (minus infinity
// is a token that cannot be drawn); INVALID_ARGUMENT one with no token left.
absl::Status Sample(CpuContext& context, ConstTensor logits,
                    absl::Span<const SamplingRow> rows,
                    std::vector<SampledToken>* out);
absl::Status ScoreTokens(CpuContext& context, ConstTensor logits,
                         absl::Span<const int32_t> targets,
                         absl::Span<const int> num_logprobs,
                         std::vector<TokenLogprobs>* out);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_SAMPLING_H_
