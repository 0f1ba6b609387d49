// Backend::Embedding on the CPU.
#ifndef OCTET_KERNELS_CPU_EMBEDDING_H_
#define OCTET_KERNELS_CPU_EMBEDDING_H_

#include "absl/status/status.h"
#include "kernels/cpu/context.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// INVALID_ARGUMENT names an id outside [0, V).
absl::Status Embedding(CpuContext& context, ConstTensor table, ConstTensor ids,
                       Tensor out);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_EMBEDDING_H_
