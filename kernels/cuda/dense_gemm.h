// Backend::Gemm on the GPU: cuBLASLt where it keeps promise 1, otherwise the
// project's own kernel (gemm.h).
//
// cuBLASLt says nothing of how a row's bits depend on the other rows. So each
// shape (dtype, n, k, accumulate) is examined once, at its first product, with
// random rows and the real weights: every algorithm that the heuristic offers
// is run for batches of many sizes, and the first one whose rows have the same
// bits in all of them is used from then on, for every number of rows. If there
// is none, the shape is the own kernel's, and the log says so once. A choice
// never changes later.
//
// The examination waits for the device and takes memory for `examined_rows`
// rows of x and out. Shapes whose rows are not multiples of 16 bytes are the
// own kernel's, and so are products rounded to bf16: the rounding would hide
// from the examination what it looks for.
#ifndef OCTET_KERNELS_CUDA_DENSE_GEMM_H_
#define OCTET_KERNELS_CUDA_DENSE_GEMM_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/dense_gemm_lt.h"
#include "kernels/cuda/gemm.h"
#include "kernels/tensor.h"

namespace octet::cuda {

struct DenseGemmOptions {
  // False: the own kernel for everything.
  bool use_cublas = true;
  // The number of rows that cuBLASLt's heuristic is asked about. One algorithm
  // serves decode and prefill, so a size between the two.
  int64_t reference_rows = 64;
  // Rows of the largest batch of an examination, 1 or more.
  int64_t examined_rows = 1024;
};

// Used by one thread at a time.
class DenseGemm {
 public:
  // FAILED_PRECONDITION without a usable GPU.
  static absl::StatusOr<std::unique_ptr<DenseGemm>> Create(
      const DenseGemmOptions& options, const GemmLauncher& own);

  // As GemmLauncher::Gemm. x and an f32 out must be at multiples of 16 bytes
  // (as everything is that is allocated, and every row of it, for the shapes
  // that cuBLASLt gets); INVALID_ARGUMENT otherwise.
  absl::Status Gemm(ConstTensor x, const PackedMatrix& w, bool accumulate,
                    Tensor out, cudaStream_t stream);

  // Examined shapes, and those of them that cuBLASLt computes.
  int num_shapes() const { return static_cast<int>(choices_.size()); }
  int num_cublas_shapes() const;

 private:
  // Empty: the own kernel.
  struct Choice {
    std::optional<LtProduct> product;
    int algorithm = 0;
  };

  DenseGemm(const DenseGemmOptions& options, const GemmLauncher& own)
      : options_(options), own_(own) {}

  // Null: nothing could be found out.
  absl::StatusOr<Choice*> Examine(const DenseShape& shape, const void* w);

  const DenseGemmOptions options_;
  const GemmLauncher own_;
  LtHandle handle_;
  std::map<DenseShape, Choice> choices_;
  bool warned_ = false;
};

// A product of `num_rows` rows at x, of one shape, to `out`. UNIMPLEMENTED when
// it cannot be done.
using DenseProduct = absl::FunctionRef<absl::Status(
    const void* x, int64_t num_rows, void* out, cudaStream_t stream)>;

enum class RowBits {
  kKept,     // the same in batches of 1 to max_rows rows, at both ends
  kLost,     // or the product cannot be done
  kUnknown,  // the products are all zero
};
absl::StatusOr<RowBits> ExamineRowBits(const DenseShape& shape,
                                       int64_t max_rows, DenseProduct product);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_DENSE_GEMM_H_
