// Backend::Sample and Backend::ScoreTokens on the GPU.
//
// The token is chosen on the device (sampling_kernels.h); per row some 50 bytes
// and the keys of the listed tokens come back, and the host turns them into
// log-probabilities. Penalties and bans are applied on copies of the rows that
// have some. The random number is the host's (philox.h).
//
// Against the CPU backend: the order of tokens and the filters are the same;
// masses are integers of 62 bits over the row instead of sums in double, so a
// choice can differ where the number drawn lies within about V * 2^-48 of a
// boundary (V 32000: 1e-10). Bits depend on the row alone.
#ifndef OCTET_KERNELS_CUDA_SAMPLING_H_
#define OCTET_KERNELS_CUDA_SAMPLING_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/tensor.h"

namespace octet::cuda {

// Wait for the stream. INTERNAL names a row whose logits hold NaN or plus
// infinity; INVALID_ARGUMENT one with no token left; *out is then as it was.
absl::Status Sample(ConstTensor logits, absl::Span<const SamplingRow> rows,
                    std::vector<SampledToken>* out, CudaStream& stream);
absl::Status ScoreTokens(ConstTensor logits, absl::Span<const int32_t> targets,
                         absl::Span<const int> num_logprobs,
                         std::vector<TokenLogprobs>* out, CudaStream& stream);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_SAMPLING_H_
