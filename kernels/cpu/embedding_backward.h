// TrainingBackend::EmbeddingBackward on the CPU.
#ifndef OCTET_KERNELS_CPU_EMBEDDING_BACKWARD_H_
#define OCTET_KERNELS_CPU_EMBEDDING_BACKWARD_H_

#include "absl/status/status.h"
#include "kernels/cpu/context.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// Threads share the columns out, so that a table row's sum has one order.
// INVALID_ARGUMENT names an id outside [0, V); nothing is written then.
absl::Status EmbeddingBackward(CpuContext& context, ConstTensor dx,
                               ConstTensor ids, Tensor dtable);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_EMBEDDING_BACKWARD_H_
