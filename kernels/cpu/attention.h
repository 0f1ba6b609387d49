// Backend::PagedAttention on the CPU.
#ifndef OCTET_KERNELS_CPU_ATTENTION_H_
#define OCTET_KERNELS_CPU_ATTENTION_H_

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cpu/context.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// One piece of work is a key/value head and a few rows of a sequence. A row's
// bits do not depend on block ids or block_tokens either: keys are taken in
// tiles of kKeyTile absolute positions.
absl::Status PagedAttention(CpuContext& context, ConstTensor q,
                            const KvCacheView& cache,
                            absl::Span<const AttentionSequence> sequences,
                            int sliding_window, Tensor out);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_ATTENTION_H_
