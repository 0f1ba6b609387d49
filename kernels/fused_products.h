// Products in groups with their low-rank addition (an adapter) and with SwiGLU
// or its gradient, in one pass over the result: an addition that a
// TrainingBackend may offer. What is fused is never rounded or written in
// between, so results differ in the last bits from those of the separate
// operations; without an adapter they are the same.
//
// Same rules and notation as kernels/training_backend.h: rows [row_offsets[g],
// row_offsets[g + 1]) belong to group g, "compute dtype" is that of the
// matrices. Shapes are checked by kernels/fused_ops.h, the only caller.
#ifndef OCTET_KERNELS_FUSED_PRODUCTS_H_
#define OCTET_KERNELS_FUSED_PRODUCTS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace octet {

// One matrix a group. A [r, k], B [n, r].
struct LowRank {
  absl::Span<const PackedMatrix* const> a;
  absl::Span<const PackedMatrix* const> b;
  // [T, r] compute dtype, what is between A and B: written, or read when
  // `u_given`.
  Tensor u;
  bool u_given = false;

  bool none() const { return b.empty(); }
};

class FusedProducts {
 public:
  virtual ~FusedProducts() = default;

  // out = x W^T + u B^T, u = x A^T; or added to. x [T, k]; W [n, k]; out [T, n]
  // f32, or compute dtype when not accumulating.
  virtual absl::Status Linear(ConstTensor x,
                              absl::Span<const PackedMatrix* const> w,
                              absl::Span<const int64_t> row_offsets,
                              const LowRank& adapter, bool accumulate,
                              Tensor out, Stream& stream) = 0;

  // h = x W13^T + u B^T; out = silu(h[:, :F]) h[:, F:]. W13 [2F, k]; out [T, F]
  // compute dtype; hidden [T, 2F] compute dtype gets h, unless without data.
  virtual absl::Status LinearSwiGlu(ConstTensor x,
                                    absl::Span<const PackedMatrix* const> w13,
                                    absl::Span<const int64_t> row_offsets,
                                    const LowRank& adapter, Tensor hidden,
                                    Tensor out, Stream& stream) = 0;

  // dx = dy W + du A, du = dy B; or added to. dy [T, n]; dx [T, k] f32, or
  // compute dtype when not accumulating. The adapter's u is du.
  virtual absl::Status LinearBackward(ConstTensor dy,
                                      absl::Span<const PackedMatrix* const> w,
                                      absl::Span<const int64_t> row_offsets,
                                      const LowRank& adapter, bool accumulate,
                                      Tensor dx, Stream& stream) = 0;

  // The gradient of SwiGLU's input, given dy behind the layer W2 that reads its
  // output: dout = dy W2 + du A; hidden <- SwiGluBackward(hidden, dout). dy [T,
  // n]; W2 [n, F]; hidden [T, 2F] compute dtype. out [T, F] compute dtype gets
  // SwiGLU's output of what hidden was, unless without data.
  virtual absl::Status LinearSwiGluBackward(
      ConstTensor dy, absl::Span<const PackedMatrix* const> w2,
      absl::Span<const int64_t> row_offsets, const LowRank& adapter,
      Tensor hidden, Tensor out, Stream& stream) = 0;
};

}  // namespace octet

#endif  // OCTET_KERNELS_FUSED_PRODUCTS_H_
