// Backend::GatherRows and Backend::CombineRows on the CPU.
#ifndef OCTET_KERNELS_CPU_PERMUTE_H_
#define OCTET_KERNELS_CPU_PERMUTE_H_

#include "absl/status/status.h"
#include "kernels/cpu/context.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// INVALID_ARGUMENT names an index outside the source; out is then as it was.
absl::Status GatherRows(CpuContext& context, ConstTensor src,
                        ConstTensor row_ids, Tensor out);
absl::Status CombineRows(CpuContext& context, ConstTensor rows,
                         ConstTensor slot_rows, ConstTensor weights,
                         Tensor out);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_PERMUTE_H_
