// One dense product of cuBLASLt: a shape, and the algorithms that its heuristic
// offers for it. An algorithm is pinned by its number and then runs for every
// number of rows; cuBLASLt is never left to choose by the rows, which would
// change a row's bits with the batch. Whether a pinned algorithm keeps the bits
// is for dense_gemm.h to find out.
#ifndef OCTET_KERNELS_CUDA_DENSE_GEMM_LT_H_
#define OCTET_KERNELS_CUDA_DENSE_GEMM_LT_H_

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <compare>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/dtype.h"

namespace octet::cuda {

template <auto kDestroy>
struct LtDeleter {
  template <typename Handle>
  void operator()(Handle handle) const {
    kDestroy(handle);
  }
};
template <typename Handle, auto kDestroy>
using OwnedLt =
    std::unique_ptr<std::remove_pointer_t<Handle>, LtDeleter<kDestroy>>;
using LtHandle = OwnedLt<cublasLtHandle_t, cublasLtDestroy>;

absl::StatusOr<LtHandle> NewLtHandle();

// out [T, n] = x [T, k] W^T, or out += ..., W [n, ld]; out f32.
struct DenseShape {
  DType dtype = DType::kBF16;  // of x and W: f32 or bf16
  int64_t n = 0;
  int64_t k = 0;
  int64_t ld = 0;
  bool accumulate = false;

  auto operator<=>(const DenseShape&) const = default;
};

// Sums are f32 (no TF32). Algorithms need no workspace, so that products on
// several streams do not meet. Used by one thread at a time.
class LtProduct {
 public:
  // Asks the heuristic for products of `reference_rows` rows whose operands are
  // aligned to 16 bytes.
  static absl::StatusOr<LtProduct> Create(cublasLtHandle_t handle,
                                          const DenseShape& shape,
                                          int64_t reference_rows);

  // Best first by the heuristic; may be 0.
  int num_algorithms() const { return static_cast<int>(algorithms_.size()); }

  // Asynchronous. x and out at multiples of 16 bytes. UNIMPLEMENTED when the
  // algorithm cannot do it.
  absl::Status Run(int algorithm, const void* x, int64_t num_rows,
                   const void* w, void* out, cudaStream_t stream);

 private:
  using Layout = OwnedLt<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;

  explicit LtProduct(cublasLtHandle_t handle) : handle_(handle) {}

  absl::Status SetRows(int64_t num_rows);
  absl::Status FindAlgorithms();

  cublasLtHandle_t handle_;
  float beta_ = 0.0f;
  OwnedLt<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy> matmul_;
  Layout w_layout_;
  Layout x_layout_;
  Layout out_layout_;
  std::vector<cublasLtMatmulAlgo_t> algorithms_;
};

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_DENSE_GEMM_LT_H_
