// Products on the emulated GPU with operands from host memory.
#ifndef OCTET_TESTS_KERNELS_CUDA_GEMM_HARNESS_H_
#define OCTET_TESTS_KERNELS_CUDA_GEMM_HARNESS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/packed_matrix.h"
#include "tests/kernels/cuda/gpu.h"
#include "tests/kernels/gemm_test_util.h"

namespace octet::test {

inline constexpr DType kComputeDtypes[] = {DType::kF32, DType::kBF16};

// Weights of the groups, on the host and packed.
struct GemmGroupSet {
  std::vector<Matrix> w;
  std::vector<std::unique_ptr<cuda::CudaPackedMatrix>> packed;
  std::vector<const PackedMatrix*> pointers;
  std::vector<int64_t> row_offsets = {0};

  int64_t num_rows() const { return row_offsets.back(); }
  const Matrix& WeightsOf(int64_t row) const;
};

class GemmTestBase : public testing::Test {
 protected:
  enum class Form { kPlain, kAccumulate, kSwiGlu };

  std::unique_ptr<cuda::CudaPackedMatrix> Pack(const Matrix& w);
  GemmGroupSet MakeGroups(DType dtype, int64_t n, int64_t k,
                          const std::vector<int64_t>& sizes);

  // x [T, k] times the groups; `before` is what an accumulation adds to.
  // `shift` moves x and out that many elements into their memory.
  struct Call {
    Form form = Form::kPlain;
    DType out_dtype = DType::kF32;
    int max_blocks = 3;
    int max_stages = 5;
    int64_t shift = 0;
    const Matrix* before = nullptr;
  };
  Matrix Run(const Matrix& x, const GemmGroupSet& groups, const Call& call);
  Matrix Run(const Matrix& x, const std::vector<const PackedMatrix*>& w,
             const std::vector<int64_t>& row_offsets, const Call& call);

  // What x[row] . w[col] may be, with `before` of an accumulation.
  static Bounded ProductAt(const Matrix& x, const Matrix& w, int64_t row,
                           int64_t col, const Matrix* before);
  // Fatal failures.
  static void ExpectWithin(const Matrix& out, int64_t row, int64_t col,
                           Bounded expected);
  static void ExpectProduct(const Matrix& out, const Matrix& x, const Matrix& w,
                            const Matrix* before);

  // 0xff bytes outside bytes [begin, end).
  void FillBeside(Tensor memory, size_t begin, size_t end);

  Gpu gpu_;
};

// Rows [begin, begin + count).
Matrix RowsOf(const Matrix& matrix, int64_t begin, int64_t count);
// Where the bits first differ, or "".
std::string FirstMismatch(const Matrix& a, const Matrix& b);

}  // namespace octet::test

#endif  // OCTET_TESTS_KERNELS_CUDA_GEMM_HARNESS_H_
