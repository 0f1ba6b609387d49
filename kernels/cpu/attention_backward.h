// TrainingBackend::AttentionBackward on the CPU.
#ifndef OCTET_KERNELS_CPU_ATTENTION_BACKWARD_H_
#define OCTET_KERNELS_CPU_ATTENTION_BACKWARD_H_

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cpu/context.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// One piece of work is a key/value head of a sequence. RESOURCE_EXHAUSTED when
// there is no scratch memory for it; nothing is written then.
absl::Status AttentionBackward(CpuContext& context, ConstTensor q,
                               const KvCacheView& cache,
                               absl::Span<const AttentionSequence> sequences,
                               int sliding_window, ConstTensor out,
                               ConstTensor dout, Tensor dq, Tensor dk,
                               Tensor dv);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_ATTENTION_BACKWARD_H_
