// The operations of kernels/fused_products.h with their arguments checked: the
// only way to call them. Errors, empty calls and threads as kernels/ops.h.
#ifndef OCTET_KERNELS_FUSED_OPS_H_
#define OCTET_KERNELS_FUSED_OPS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/fused_products.h"
#include "kernels/tensor.h"

namespace octet::fused_ops {

// x [T, k] f32 or bf16, the dtype of all matrices: w.size() W [n, k], and as
// many A [r, k] and B [n, r] or none; adapter.u [T, r] of that dtype; out [T,
// n] f32, or that dtype when not accumulating.
absl::Status Linear(FusedProducts& products, ConstTensor x,
                    absl::Span<const PackedMatrix* const> w,
                    absl::Span<const int64_t> row_offsets,
                    const LowRank& adapter, bool accumulate, Tensor out,
                    Stream& stream);

// w13 [2F, k]; hidden [T, 2F] of x's dtype, or without data; out [T, F] of x's
// dtype.
absl::Status LinearSwiGlu(FusedProducts& products, ConstTensor x,
                          absl::Span<const PackedMatrix* const> w13,
                          absl::Span<const int64_t> row_offsets,
                          const LowRank& adapter, Tensor hidden, Tensor out,
                          Stream& stream);

// dy [T, n] of the matrices' dtype; dx [T, k] f32, or that dtype when not
// accumulating.
absl::Status LinearBackward(FusedProducts& products, ConstTensor dy,
                            absl::Span<const PackedMatrix* const> w,
                            absl::Span<const int64_t> row_offsets,
                            const LowRank& adapter, bool accumulate, Tensor dx,
                            Stream& stream);

// dy [T, n], w2 [n, F], hidden [T, 2F], out [T, F] or without data, all of one
// dtype.
absl::Status LinearSwiGluBackward(FusedProducts& products, ConstTensor dy,
                                  absl::Span<const PackedMatrix* const> w2,
                                  absl::Span<const int64_t> row_offsets,
                                  const LowRank& adapter, Tensor hidden,
                                  Tensor out, Stream& stream);

}  // namespace octet::fused_ops

#endif  // OCTET_KERNELS_FUSED_OPS_H_
