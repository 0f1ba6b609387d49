// TrainingBackend::Repack on the CPU.
#ifndef OCTET_KERNELS_CPU_REPACK_H_
#define OCTET_KERNELS_CPU_REPACK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/cpu/context.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// CpuPackedMatrix::PackRows with the panels shared out over the threads. rows
// [r, k] f32, which fit at row_begin.
absl::Status Repack(CpuContext& context, CpuPackedMatrix& matrix,
                    int64_t row_begin, ConstTensor rows);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_REPACK_H_
