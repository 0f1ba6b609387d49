// What the tests of the matrix products share: the kernels to run them on, and
// operands with a naive double-precision reference.
#ifndef OCTET_TESTS_KERNELS_GEMM_TEST_UTIL_H_
#define OCTET_TESTS_KERNELS_GEMM_TEST_UTIL_H_

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/tensor.h"

namespace octet::test {

// One set of kernels: those of an instruction set of this processor, or the AMX
// product on emulated tiles.
struct GemmPath {
  std::string name;
  const cpu::GemmKernels* f32;
  const cpu::GemmKernels* bf16;
  const cpu::EpilogueKernels* epilogue;
  const cpu::PanelKernels* panels;

  cpu::GemmWorkspace Workspace(cpu::ThreadPool* pool) const {
    return cpu::GemmWorkspace(*f32, *bf16, *epilogue, *panels, pool);
  }
};
std::vector<GemmPath> AllGemmPaths();

// A row-major matrix whose elements are exact in `dtype`.
class Matrix {
 public:
  Matrix(DType dtype, int64_t rows, int64_t cols);
  // Normally distributed, so that sums cancel.
  static Matrix Random(DType dtype, int64_t rows, int64_t cols, uint32_t seed);

  DType dtype() const { return dtype_; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  double At(int64_t row, int64_t col) const;
  void Set(int64_t row, int64_t col, float value);
  ConstTensor View() const { return ViewOf(0, rows_); }
  ConstTensor ViewOf(int64_t row_begin, int64_t num_rows) const;
  Tensor MutableView();
  // Rows as raw bytes, for exact comparisons.
  std::string RowBytes(int64_t row) const;
  std::unique_ptr<cpu::CpuPackedMatrix> Pack() const;

 private:
  size_t Index(int64_t row, int64_t col) const { return row * cols_ + col; }

  DType dtype_;
  int64_t rows_;
  int64_t cols_;
  std::vector<float> f32_;  // one of the two is used
  std::vector<BF16> bf16_;
};

// A value and how far f32 arithmetic may be from it.
struct Bounded {
  double value;
  double error;
};
// x[row] . w[col] in double. A chain of k fused multiply-adds (or of dot
// products of pairs) in f32 is off by at most k * 2^-24 * sum |x||w| to first
// order; twice that covers the higher orders and the two roundings a pair
// product may take. The operands are the same rounded numbers, so the bound is
// the same for bf16; 1e-36 allows for denormals taken as zero.
Bounded Dot(const Matrix& x, int64_t row, const Matrix& w, int64_t col);
// silu(gate) * up for bounded gate and up: |silu'| < 1.1, and 16 roundings of
// the f32 evaluation.
Bounded SwiGlu(const Bounded& gate, const Bounded& up);

}  // namespace octet::test

#endif  // OCTET_TESTS_KERNELS_GEMM_TEST_UTIL_H_
