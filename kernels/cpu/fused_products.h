// FusedProducts on the CPU: the matrix products of gemm.h and gemm_backward.h,
// whose rows are laid out once for the weight and the adapter, and whose sums
// go through the adapter and the activation in the cache.
#ifndef OCTET_KERNELS_CPU_FUSED_PRODUCTS_H_
#define OCTET_KERNELS_CPU_FUSED_PRODUCTS_H_

#include <cstdint>

#include "kernels/cpu/context.h"
#include "kernels/cpu/gemm_workspace.h"
#include "kernels/fused_products.h"

namespace octet::cpu {

// A part of the CPU backend, whose threads and scratch memory it uses: they
// must outlive it.
class CpuFusedProducts : public FusedProducts {
 public:
  CpuFusedProducts(const CpuContext& context, GemmWorkspace& gemm)
      : training_kernels_(context.training_kernels()), gemm_(gemm) {}

  absl::Status Linear(ConstTensor x, absl::Span<const PackedMatrix* const> w,
                      absl::Span<const int64_t> row_offsets,
                      const LowRank& adapter, bool accumulate, Tensor out,
                      Stream& stream) override;
  absl::Status LinearSwiGlu(ConstTensor x,
                            absl::Span<const PackedMatrix* const> w13,
                            absl::Span<const int64_t> row_offsets,
                            const LowRank& adapter, Tensor hidden, Tensor out,
                            Stream& stream) override;
  absl::Status LinearBackward(ConstTensor dy,
                              absl::Span<const PackedMatrix* const> w,
                              absl::Span<const int64_t> row_offsets,
                              const LowRank& adapter, bool accumulate,
                              Tensor dx, Stream& stream) override;
  absl::Status LinearSwiGluBackward(ConstTensor dy,
                                    absl::Span<const PackedMatrix* const> w2,
                                    absl::Span<const int64_t> row_offsets,
                                    const LowRank& adapter, Tensor hidden,
                                    Tensor out, Stream& stream) override;

 private:
  const TrainingKernels& training_kernels_;
  GemmWorkspace& gemm_;
};

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_FUSED_PRODUCTS_H_
