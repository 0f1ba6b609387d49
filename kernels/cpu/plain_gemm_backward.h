// The four products of TrainingBackend on the CPU, one multiply-add at a time.
#ifndef OCTET_KERNELS_CPU_PLAIN_GEMM_BACKWARD_H_
#define OCTET_KERNELS_CPU_PLAIN_GEMM_BACKWARD_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cpu/gemm.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// The matrices are CpuPackedMatrix (packed_matrix.h). Errors as of gemm.h
// (workspace).
absl::Status GroupedGemmAccumulate(ConstTensor x,
                                   absl::Span<const PackedMatrix* const> w,
                                   absl::Span<const int64_t> row_offsets,
                                   Tensor out, GemmWorkspace& workspace);
absl::Status GemmBackwardInput(ConstTensor dy, const PackedMatrix& w,
                               bool accumulate, Tensor dx,
                               GemmWorkspace& workspace);
absl::Status GroupedGemmBackwardInput(ConstTensor dy,
                                      absl::Span<const PackedMatrix* const> w,
                                      absl::Span<const int64_t> row_offsets,
                                      bool accumulate, Tensor dx,
                                      GemmWorkspace& workspace);
absl::Status GemmBackwardWeight(ConstTensor x, ConstTensor dy, float scale,
                                bool accumulate, Tensor dw,
                                GemmWorkspace& workspace);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_PLAIN_GEMM_BACKWARD_H_
